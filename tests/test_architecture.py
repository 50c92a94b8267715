"""The house rules that a program can check: who may import whom, what is public, and how long a room may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "llamabox"
MAX_FILE_LINES = 400
"""A longer file is a sign of two ideas."""

MAX_FUNCTION_LINES = 60
MAX_FILES = 12
"""Python files of a folder's own: more of them hold two ideas."""

VALUES = ("engine.request", "engine.events", "imaging.config", "imaging.job", "imaging.events")
"""Plain values that may cross the process boundary."""

# For each part of the house, what else of the house it may import. The longest prefix of a module's name counts, and
# what stands in the same row may always be imported.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "log": ("errors",),
    "background": (),
    "machine": (),
    "marks": (),
    "libllama": (),
    "artifacts": (),
    "first_process": (),
    "quarantine": ("machine",),
    "schemas": ("errors", "checks"),
    "bench": ("errors", "log"),
    "bindings": ("errors", "log", "artifacts", "libllama"),
    "doctor": (
        *("errors", "log", "machine", "artifacts", "demo", "chat.template", "options", "imaging.config"),
        *("lending.config", "server.listening", "wire.text_config"),
    ),
    "engine": ("errors", "marks"),
    "grammar": ("errors", "engine.grammar"),
    "imaging": ("errors", "log", "bindings", "imaging.config", "imaging.job", "imaging.events"),
    "imaging.config": (),
    "imaging.job": ("errors",),
    "imaging.events": ("errors",),
    "checks": ("errors",),
    "chat": ("errors", "log", "marks", "checks", "schemas.patterns", "quarantine", "media.source"),
    "media": (
        *("errors", "log", "machine", "checks", "quarantine", "media.source", "media.fetching.hosts"),
        *("engine.request", "wire.text_config"),
    ),
    "media.source": (),
    "media.fetching.hosts": (),
    "wire": ("errors", "log", *VALUES),
    "clients": ("errors", "log", "background", "machine", "wire", *VALUES),
    "workers": ("errors", "log", "wire"),
    "workers.inspect": ("errors", "log", "bindings"),
    "workers.doctor": ("errors", "log", "bindings"),
    "workers.text": (
        *("errors", "log", "quarantine", "machine", "artifacts", "bindings", "engine", "grammar", "wire", "workers"),
    ),
    "workers.image": ("errors", "log", "bindings", "imaging", "wire", "workers"),
    "workers.lending": ("errors", "log", "bindings", "lending.cache", "lending.settings", "wire", "workers"),
    "lending": ("errors", "log", "background", "artifacts", "machine", "wire"),
    "server": (
        "errors",
        "log",
        "marks",
        "background",
        "machine",
        "checks",
        "schemas",
        "chat",
        "media",
        "clients",
        "wire",
        *VALUES,
    ),
    "options": (
        "errors",
        "log",
        "machine",
        "libllama",
        "schemas",
        "chat.config",
        "chat.formats.known",
        "media.fetching.hosts",
        "lending",
        "server.listening.config",
        "server.hosted.config",
        "wire",
        "clients.crowd",
        *VALUES,
    ),
}

SERVER_ROOMS: dict[str, tuple[str, ...]] = {
    "server.listening": ("server.http.record",),
    "server.http": ("server.listening.arrival",),
    "server.fields": ("server.hosted.config", "server.hosted.seams"),
    "server.metrics": ("server.http", "server.hosted.seams", "server.generation.timings"),
    "server.hosted": ("server.http", "server.fields", "server.metrics", "server.listening.config"),
    "server.generation": ("server.http", "server.fields", "server.hosted"),
    "server.conversation": ("server.http", "server.fields", "server.hosted", "server.generation"),
    "server.api": ("server.http", "server.fields", "server.hosted", "server.generation", "server.conversation"),
}
"""What the server's rooms may import of each other."""

API_TO_API = {
    ("images", "about"),  # GET /v1/models has one form, whatever the model
    ("openai", "native"),  # `verbose` shows the final object of /completion
}
"""Folders of server/api/ that know another. A new API is a folder that none of these needs to name."""

FOR_THE_BUILDER = ("artifacts", "machine")
"""What build_native.py, which runs before anything is installed, may import of the package."""

LLAMA = ("bindings.backend", "bindings.model", "bindings.context", "bindings.vocab", "bindings.batch")
"""The rooms behind the door to libllama."""

WORKER_PROCESSES = ("workers",)
"""What runs in a process of its own and may load native code; nobody else may import it."""

SERVER_PROCESS = ("__main__", "cli", "doctor", "server", "lending", "clients", "wire", "chat", "media", "options")
"""What runs in the server process, or in the one that listens for RPC clients: no native code."""

PURE = frozenset(
    {"__future__", "abc", "array", "bisect", "codecs", "collections", "contextlib", "dataclasses", "enum", "functools"}
    | {
        "hashlib",
        "heapq",
        "itertools",
        "logging",
        "math",
        "numpy",
        "operator",
        "re",
        "secrets",
        "sys",
        "time",
        "typing",
    }
)
"""What arithmetic and bookkeeping need: no C of ours, no event loop, thread, socket, file or JSON."""

NEEDS: dict[str, frozenset[str]] = {"engine": PURE, "grammar": PURE | {"llguidance", "orjson"}}
"""All that the two may import of others. Grammars are JSON on their way to llguidance."""

APART = (
    *(("clients", "workers"), ("server", "workers"), ("server", "grammar"), ("chat", "workers")),
    *(("media", "workers"), ("server", "media.decoding.sandbox")),
)
"""What never meets in a process, in either direction, not even through a third module."""


@dataclass(frozen=True)
class Module:
    """A parsed source file. `name` is without the package's own: "" is llamabox itself."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def tree(self) -> ast.Module:
        return parse(self.path)


@dataclass(frozen=True)
class Import:
    """One imported module of ours, or a foreign top-level package."""

    target: str
    line: int
    is_ours: bool
    only_types: bool


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if parts[0] == "_native":
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


@cache
def imports_of(module: Module) -> list[Import]:
    """Every import, wherever it stands."""
    type_only = {
        id(node)
        for branch in ast.walk(module.tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in targets(node, module):
                ours = is_within(target, PACKAGE)
                name = target.removeprefix(PACKAGE).removeprefix(".") if ours else target.partition(".")[0]
                found.append(Import(name, node.lineno, ours, id(node) in type_only))
    return found


def targets(node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[str]:
    """Full names of the modules that a statement imports: `from a import b` is a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = [PACKAGE, *filter(None, module.name.split("."))]
        n_up = node.level - module.is_package
        base = ".".join([*parts[: len(parts) - n_up], *filter(None, [base])])
    for alias in node.names:
        full = f"{base}.{alias.name}"
        yield full if full.removeprefix(PACKAGE + ".") in modules() else base


def row_of(name: str) -> str | None:
    rows = [part for part in MAY_IMPORT if is_within(name, part)]
    return max(rows, key=len, default=None)


def breach(module: Module, target: str) -> str | None:
    """What is wrong with `module` importing `target`, both of this house; None when nothing is."""
    worker = next((part for part in WORKER_PROCESSES if is_within(target, part)), None)
    if worker and not is_within(module.name, worker):
        return f"{worker} runs in a process of its own and is imported by nobody"
    row = row_of(module.name)
    if row is None or target == "" or row_of(target) == row:
        return None
    if any(is_within(target, part) for part in MAY_IMPORT[row]):
        return None
    return f"{row} may import {', '.join(MAY_IMPORT[row]) or 'nothing of ours'}"


def test_the_walk_finds_the_house() -> None:
    assert {"", "errors", "engine.engine", "server.hosted.config", "wire.frames"} <= set(modules())
    found = {imported.target for imported in imports_of(modules()["engine.engine"])}
    assert {"errors", "engine.kv.kv_cache", "engine.events", "secrets"} <= found


def test_imports_run_one_way() -> None:
    breaches = [
        f"{module.path.relative_to(ROOT)}:{imported.line} imports {imported.target}: {reason}"
        for module in modules().values()
        for imported in imports_of(module)
        if imported.is_ours and (reason := breach(module, imported.target))
    ]
    assert breaches == [], "\n".join(breaches)


@pytest.mark.parametrize("room", SERVER_ROOMS)
def test_imports_between_rooms_of_the_server_run_one_way(room: str) -> None:
    breaches = [
        f"{name}:{imported.line} imports {imported.target}"
        for name, module in modules().items()
        if is_within(name, room)
        for imported in imports_of(module)
        if imported.is_ours and is_within(imported.target, "server") and not is_within(imported.target, room)
        if not any(is_within(imported.target, part) for part in SERVER_ROOMS[room])
    ]
    assert breaches == [], "\n".join(breaches)


def test_an_api_knows_no_other() -> None:
    known = {
        (name.split(".")[2], imported.target.split(".")[2])
        for name, module in modules().items()
        if name.startswith("server.api.")
        for imported in imports_of(module)
        if imported.is_ours and imported.target.startswith("server.api.")
    }
    assert {(one, other) for one, other in known if one != other} == API_TO_API


@pytest.mark.parametrize("part", NEEDS)
def test_what_computes_is_pure(part: str) -> None:
    breaches = [
        f"{name}:{imported.line} imports {imported.target}"
        for name, module in modules().items()
        if is_within(name, part)
        for imported in imports_of(module)
        if not imported.is_ours and imported.target not in NEEDS[part]
    ]
    assert breaches == [], "\n".join(breaches)


@cache
def closure(name: str) -> dict[str, str]:
    """Everything that importing `name` may ever load of ours, and by whom; lazy imports count."""
    found = {name: name}
    pending = [name]
    while pending:
        current = pending.pop()
        for imported in imports_of(modules()[current]):
            if not imported.is_ours or imported.only_types or imported.target not in modules():
                continue
            # A module brings its parent packages with it.
            parts = imported.target.split(".")
            for target in (".".join(parts[:i]) for i in range(1, len(parts) + 1)):
                if target and target not in found:
                    found[target] = current
                    pending.append(target)
    return found


def test_the_server_process_loads_neither_native_code_nor_what_drives_it() -> None:
    allowed = {"engine", "imaging", *VALUES}
    loaded = [
        f"{target} by {importer}, for {name}"
        for name in modules()
        if any(is_within(name, part) for part in SERVER_PROCESS)
        for target, importer in closure(name).items()
        if any(is_within(target, part) for part in ("bindings", "engine", "imaging")) and target not in allowed
    ]
    assert loaded == [], "\n".join(loaded)


@pytest.mark.parametrize(("here", "there"), [*APART, *((there, here) for here, there in APART)], ids=str)
def test_the_two_sides_of_the_wire_never_meet(here: str, there: str) -> None:
    loaded = [
        f"{target} by {importer}"
        for name in modules()
        if is_within(name, here)
        for target, importer in closure(name).items()
        if is_within(target, there)
    ]
    assert loaded == [], "\n".join(loaded)


@pytest.mark.parametrize(
    ("worker", "foreign"), [("workers.image", LLAMA), ("workers.text", ("bindings.images.diffusion",))]
)
def test_no_worker_loads_the_bindings_of_another_s_library(worker: str, foreign: tuple[str, ...]) -> None:
    """Two libraries with a ggml each must never meet in one process."""
    loaded = [
        f"{target} by {importer}"
        for name in modules()
        if is_within(name, worker)
        for target, importer in closure(name).items()
        if any(is_within(target, part) for part in foreign)
    ]
    assert loaded == [], "\n".join(loaded)


def test_only_the_pipeline_and_its_worker_know_the_library_that_draws() -> None:
    """Its ggml must never meet libllama's in a process."""
    importers = {
        name
        for name, module in modules().items()
        if any(imported.is_ours and imported.target == "bindings.images.diffusion" for imported in imports_of(module))
    }
    assert importers
    assert {name for name in importers if name != "imaging.pipeline" and not is_within(name, "workers.image")} == set()


def test_only_a_child_opens_files_of_strangers() -> None:
    """The decoders of pictures and sound are loaded in quarantine, and nowhere else. Ours alone are written here."""
    opening = {
        name
        for name, module in modules().items()
        for imported in imports_of(module)
        if not imported.is_ours and imported.target in ("PIL", "soundfile", "soxr")
    }
    decoders = {"media.decoding.pictures", "media.decoding.sounds"}
    assert opening == decoders | {"imaging.png"}
    importers = {
        name
        for name, module in modules().items()
        if any(imported.is_ours and imported.target in decoders for imported in imports_of(module))
    }
    assert importers == {"media.decoding.sandbox"}


def test_values_need_nothing_but_each_other() -> None:
    for name in VALUES:
        package = name.partition(".")[0]
        assert set(closure(name)) <= {package, name, "errors"}
        assert imports_of(modules()[package]) == []


def test_importing_the_package_loads_nothing_but_the_standard_library() -> None:
    script = f"import sys; before = set(sys.modules); import {PACKAGE}; print(*sorted(set(sys.modules) - before))"
    # -P: the current folder is on the path for the package under test only because it is named there.
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {PACKAGE}


def builder() -> list[Module]:
    """The files that build the native libraries. They run before anything is installed."""
    paths = [ROOT / "build_native.py", *sorted((ROOT / "native").rglob("*.py"))]
    return [Module(path.relative_to(ROOT).as_posix(), path) for path in paths]


def test_the_builder_needs_of_the_package_only_what_needs_the_standard_library_alone() -> None:
    imported = {found.target for module in builder() for found in imports_of(module) if found.is_ours}
    assert imported
    breaches = [name for name in imported if not any(is_within(name, part) for part in FOR_THE_BUILDER)]
    assert breaches == [], "\n".join(breaches)
    foreign = [
        f"{name}:{found.line} imports {found.target}"
        for name, module in modules().items()
        if any(is_within(name, part) for part in FOR_THE_BUILDER)
        for found in imports_of(module)
        if (found.is_ours and row_of(found.target) != row_of(name))
        or (not found.is_ours and found.target not in sys.stdlib_module_names)
    ]
    assert foreign == []


def test_nothing_is_done_at_import_time() -> None:
    """A bare call, a loop or a `with` at the top of a module is work; so is a global that functions write to."""
    found = [
        f"{module.path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node).splitlines()[0]}"
        for module in modules().values()
        for node in module.tree.body
        if isinstance(node, ast.For | ast.While | ast.With)
        or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
    ]
    found += [
        f"{module.path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    assert found == [], "\n".join(found)


def sources() -> list[Path]:
    ours = [module.path for module in modules().values()]
    return [*ours, *(path for path in [ROOT / "build_native.py"] if path.exists())]


def test_rooms_stay_small() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {n} lines: it holds two ideas"
        for path in sources()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    ]
    long += [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}() has {n} lines"
        for path in sources()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == [], "\n".join(long)


def folders() -> list[Path]:
    tracked = [ROOT / PACKAGE, ROOT / "tests", ROOT / "native"]
    found = {path.parent for top in tracked for path in top.rglob("*.py") if "_native" not in path.parts}
    return sorted(found)


def test_a_folder_holds_one_idea() -> None:
    full = [
        f"{folder.relative_to(ROOT)} has {len(files)} Python files: {', '.join(files)}"
        for folder in folders()
        if len(files := sorted(path.name for path in folder.glob("*.py"))) > MAX_FILES
    ]
    assert full == [], "\n".join(full)


def test_every_module_says_what_it_is() -> None:
    silent = [str(module.path) for module in modules().values() if not ast.get_docstring(module.tree)]
    assert silent == [], "\n".join(silent)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(tree: ast.Module, module: Module) -> Iterator[str]:
    """Uses of a name that begins with an underscore outside of where it belongs: a module, or a folder for a module."""
    named = {
        node.name if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store))
    }
    own = {name.rpartition(".")[2] for name in named}
    foreign = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if not is_within(alias.name, PACKAGE)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_within(node.module or "", PACKAGE):
            *folders, _ = [*(node.module or "").split("."), ""]
            for at, part in enumerate(folders):
                if is_private(part) and not is_within(f"{PACKAGE}.{module.name}", ".".join(folders[:at])):
                    yield f"{node.lineno}: the module {part}"
            yield from (f"{node.lineno}: {alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()") and owner not in foreign:
                yield f"{node.lineno}: {owner}.{node.attr}"


def test_what_is_private_is_used_where_it_belongs_alone() -> None:
    uses = [
        f"{module.path.relative_to(ROOT)}:{use}"
        for module in modules().values()
        for use in private_uses(module.tree, module)
    ]
    assert uses == [], "\n".join(uses)


def test_a_private_use_is_found() -> None:
    here = modules()["engine.engine"]
    for source in (
        "from llamabox.engine.rate import _hidden",
        "from llamabox.bindings._door import load",
        "engine.cache._slots",
        "def step(self, other): return other._cells",
    ):
        assert list(private_uses(ast.parse(source), here)), source
    for source in (
        "from llamabox.engine._door import load",
        "self._cells",
        "import os; os._exit(0)",
        "class Slot:\n def __init__(self): self._cells = 1\n def same(self, other): return self._cells == other._cells",
    ):
        assert not list(private_uses(ast.parse(source), here)), source


def exported(module: Module) -> list[str] | None:
    """`__all__` of a module; None where it has none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            assert isinstance(names, list)
            return names
    return None


@cache
def all_taken() -> list[tuple[str, str]]:
    """Module and name of each `from module import name` within the house, modules left out."""
    return [
        (node.module, alias.name)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.module and is_within(node.module, PACKAGE)
        for alias in node.names
        if f"{node.module}.{alias.name}".removeprefix(PACKAGE + ".") not in modules()
    ]


def taken_from(full: str) -> set[str]:
    return {name for module, name in all_taken() if module == full}


def test_a_package_says_what_it_hands_on() -> None:
    """An `__init__` that imports has `__all__`, whose names are bound there; others take no other name from it."""
    for module in modules().values():
        if not module.is_package:
            continue
        path = module.path.relative_to(ROOT)
        imported = [node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        hands_on = [node for node in imported if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
        names = exported(module)
        assert (names is not None) == bool(hands_on), f"{path}: __all__ is for a package that imports, and for no other"
        full = ".".join(filter(None, [PACKAGE, module.name]))
        bound = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        bound |= {alias.asname or alias.name for node in hands_on for alias in node.names}
        assert set(names or ()) <= bound, path
        assert taken_from(full) <= set(names or ()), (
            f"{path}: a name comes from the module that defines it, or from the package's __all__"
        )
