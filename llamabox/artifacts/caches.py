"""Folders for what can be made or fetched again: builds and models. They are trusted: nobody else may write there."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "llamabox"
OVERFLOW_UID = 65534
"""Owner of files whose real owner does not exist in this user namespace."""


class NoCache(Exception):
    """A sentence: why there is no folder, and what to do."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder that exists, that this user may write to and nobody else. `note` says why it is not the usual one."""

    path: Path
    note: str = ""


def usual(part: str, environ: Mapping[str, str]) -> Path | None:
    """The folder for `part`; None for a user without a home."""
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / NAME / part
    home = environ.get("HOME")
    with contextlib.suppress(KeyError):
        return Path(home or pwd.getpwuid(os.getuid()).pw_dir).absolute() / ".cache" / NAME / part
    return None


def cache(part: str, environ: Mapping[str, str]) -> Cache:
    """The usual folder, or one below TMPDIR where that cannot be used. Raises NoCache."""
    first = usual(part, environ)
    problem = "there is no home folder" if first is None else why_not(first) or cannot_write(first)
    if problem is None:
        assert first is not None
        return Cache(first)
    try:
        second = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}" / part
        also = why_not(second) or cannot_write(second)
    except FileNotFoundError as error:  # gettempdir() found none that can be written to
        also = str(error.strerror or error)
    if also is not None:
        raise NoCache(f"no cache can be kept: {problem}, and {also}. Set XDG_CACHE_HOME to a folder of your own")
    return Cache(second, f"{problem}: the cache is {second} instead. XDG_CACHE_HOME names another folder")


def cannot_write(folder: Path) -> str | None:
    """Makes the folder, and what is missing on the way to it. Returns why nothing can be kept there, or None."""
    try:
        for path in parents_and(folder):
            if not path.is_dir():
                path.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror})"


def why_not(folder: Path) -> str | None:
    """Why the files in `folder` cannot be trusted: others may change it, or a folder above it. None where they can."""
    chain = dict.fromkeys(
        path for end in (folder.absolute(), folder.resolve()) for path in (*reversed(end.parents), end)
    )
    for path in chain:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if found.st_uid not in (0, os.geteuid(), OVERFLOW_UID):
            return f"{path} belongs to another user ({name_of(found.st_uid)})"
        if is_shared(found) and not (found.st_mode & stat.S_ISVTX and path != folder):
            return f"{path} can be written to by others"
    return None


def parents_and(folder: Path) -> tuple[Path, ...]:
    """The way to a folder, from the root."""
    return (*reversed(folder.parents), folder)


def is_shared(found: os.stat_result) -> bool:
    """Whether others may write. A group of the user alone, as many systems have it, is none of others."""
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP or found.st_gid == 0:
        return False
    try:
        group, user = grp.getgrgid(found.st_gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return found.st_gid != os.getegid()
    return group.gr_gid != user.pw_gid or group.gr_name != user.pw_name or bool({*group.gr_mem} - {user.pw_name})


def name_of(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"
