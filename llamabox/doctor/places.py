"""Folders, files and addresses: those that the server's options name, and those of the user."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from llamabox.artifacts import caches
from llamabox.demo import DEMO, VARIABLE
from llamabox.doctor.findings import Fact, Finding, ok, problem, warning
from llamabox.doctor.libraries import Libraries
from llamabox.doctor.system import System
from llamabox.errors import ListenError, OptionsError
from llamabox.options.named_files import check_file
from llamabox.server.listening.binding import bind_sockets, unix_paths

NEED_GGUF = frozenset({"model", "draft model"})
"""Kinds of files that libllama's child reads."""


def examine_caches(environ: Mapping[str, str], needs_demo: bool) -> Iterator[Finding]:
    """Where fetched models are kept. `needs_demo`: no model was named, and the demo model would be served."""
    own = environ.get(VARIABLE)
    usual = caches.usual("models", environ)
    path = Path(own) if own else usual and usual / DEMO.name
    there = path is not None and path.is_file() and (bool(own) or path.stat().st_size == DEMO.size)
    if own and not there:
        yield problem(
            "model", f"{VARIABLE}={own}: there is no such file", f"name a file that is there, or unset {VARIABLE}"
        )
    elif needs_demo:
        what = "is on disk" if there else "would be fetched with pip, 98 MB, at the first start"
        yield ok("model", f"no -m: the demo model {what}", path=str(path) if there else None)
    why = "there is no home folder" if usual is None else caches.why_not(usual) or not_writable(usual)
    if why is None:
        yield ok("home", f"fetched models are kept in {usual}", path=str(usual))
        return
    second = Path(_temporary() or "/tmp") / f"{caches.NAME}-{os.getuid()}" / "models"
    also = caches.why_not(second) or not_writable(second)
    if also is None:
        instead = f"{second} is used instead, which may be emptied when the machine starts"
    else:
        instead = f"{also}, either: nothing can be kept, nor fetched"
    advice = "set XDG_CACHE_HOME to a folder that can be written to; or name a model with -m, which needs none of them"
    found = problem if needs_demo and not there and also is not None else warning
    yield found("home", f"{why}; {instead}", advice, demo_there=there)


def examine_address(hosts: Iterable[str], port: int, system: System, *, reuse_port: bool = False) -> Iterator[Finding]:
    """Listens there for a moment, as the server would."""
    hosts = tuple(hosts)
    where = ", ".join(host if host.endswith(".sock") else f"{host} port {port}" for host in hosts)
    try:
        sockets = bind_sockets(hosts, port, reuse_port=reuse_port)
    except ListenError as error:
        yield _taken(error.message, port, system)
        return
    paths = unix_paths(sockets)
    for sock in sockets:
        sock.close()
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
    yield ok("address", f"{where}: nothing stands in the way of listening there", port=port)


def examine_files(named: Iterable[tuple[str, str]], libraries: Libraries) -> Iterator[Finding]:
    """The files that options name, each with what it is."""
    for what, path in named:
        try:
            check_file(what, path)
        except OptionsError as error:
            yield problem("model", error.message, "name a file that is there, and that this user may read", path=path)
            continue
        step = f"file {path}"
        if (wrong := libraries.told.error(step)) is not None:
            yield problem("model", wrong.message, "fetch or convert it again, or name another file", path=path)
        elif (found := libraries.told.done(step)) is not None:
            text = f"{what} {path}: {found['architecture']}, {found['n_bytes'] // 1_000_000} MB of weights, whole"
            yield ok("model", text, path=path, **found)
        elif libraries.told.ended_in == step:
            yield problem("model", f"{what} {path}: the process that reads it {libraries.told.end}", "fetch it again")
        else:
            yield ok("model", f"{what} {path} can be read", path=path)


def readable(named: Iterable[tuple[str, str]]) -> list[str]:
    """Those of the files that libllama's child is to read."""
    found = []
    for what, path in named:
        with contextlib.suppress(OptionsError):
            check_file(what, path)
            if what in NEED_GGUF:
                found.append(path)
    return found


def not_writable(folder: Path) -> str | None:
    """Why nothing can be kept in a folder, which need not be there, or None. Makes nothing."""
    at = folder
    while not at.exists() and at != at.parent:
        at = at.parent
    if not at.is_dir():
        return f"{at} is no folder"
    return None if os.access(at, os.W_OK | os.X_OK) else f"{at} cannot be written to"


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _taken(message: str, port: int, system: System) -> Finding:
    holder = holder_of(port, system) if "in use" in message else None
    advice = "choose another with --host and --port" if holder is None else "end that, or choose another with --port"
    if holder is None:
        return problem("address", message, advice, port=port)
    process, command = holder
    text = f"{message}: process {process} has it ({command})"
    facts: dict[str, Fact] = {"port": port, "process": process, "command": command}
    if any(word.rpartition("/")[2] == "llamabox" for word in command.split()):
        return warning(
            "address", f"{text}, a llamabox that runs already", "llamabox health asks how it is; " + advice, **facts
        )
    return problem("address", text, advice, **facts)


def holder_of(port: int, system: System) -> tuple[int, str] | None:
    """Id and command of a process that listens on a TCP port; None where this user may not see it."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        for line in system.text(f"proc/net/{name}").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        return None
    for folder in system.there("proc/[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                        return int(folder.name), " ".join(words[:3])  # what follows may hold keys
    return None
