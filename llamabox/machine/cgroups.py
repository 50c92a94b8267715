"""The control groups this process is in: what a container, a systemd slice or a batch system lets it have.

A limit holds for a group and all below it, so the least of all groups up to the root counts. Version 1 has a tree for
each controller, version 2 one for all; a machine may have both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Group:
    """A folder of one group, whose files tell and set its limits."""

    folder: Path
    version: int

    def text(self, name: str) -> str:
        """The first line of a file; empty where there is no such file."""
        try:
            return (self.folder / name).read_text().partition("\n")[0]
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """The number in a file; None where there is none, as with `max`."""
        text = self.text(name)
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def fields(self, name: str) -> dict[str, int]:
        """The numbers of a file of lines with a name and a number."""
        return fields(self.folder / name)


@dataclass(frozen=True, slots=True)
class _Mount:
    version: int
    root: PurePosixPath  # the group that lies at `point`
    point: Path
    options: frozenset[str]


def groups(controller: str, proc: Path = SELF) -> Iterator[Group]:
    """The groups with this controller that this process is in, the innermost first; none outside Linux."""
    mounts = list(_mounts(proc / "mountinfo"))
    for path, version, controllers in _own(proc / "cgroup"):
        if version == 1 and controller not in controllers:
            continue
        for mount in mounts:
            if mount.version == version and (version == 2 or controller in mount.options):
                yield from (Group(folder, version) for folder in _up(path, mount))


def fields(path: Path) -> dict[str, int]:
    """The numbers of a file of lines with a name and a number, by their names; empty where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _own(path: Path) -> Iterator[tuple[PurePosixPath, int, frozenset[str]]]:
    """Lines as `4:cpu,cpuacct:/docker/0123` for version 1 and `0::/system.slice` for version 2."""
    for line in _lines(path):
        number, _, rest = line.partition(":")
        controllers, has_path, own = rest.partition(":")
        if has_path:
            version = 2 if number == "0" and not controllers else 1
            yield PurePosixPath(own), version, frozenset(controllers.split(","))


def _mounts(path: Path) -> Iterator[_Mount]:
    """Lines as `36 35 0:31 ROOT POINT OPTIONS… - cgroup SOURCE cpu,cpuacct`; a blank in a path is `\\040`."""
    for line in _lines(path):
        place, _, kind = line.partition(" - ")
        words, (what, *options) = place.split(), kind.split() or [""]
        if what in ("cgroup", "cgroup2") and len(words) > 4:
            root, point = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word) for word in words[3:5])
            version = 2 if what == "cgroup2" else 1
            yield _Mount(version, PurePosixPath(root), Path(point), frozenset(",".join(options).split(",")))


def _up(path: PurePosixPath, mount: _Mount) -> Iterator[Path]:
    """The folders from a group up to the mount.

    A container may see its own part alone while the system tells the whole path. A group outside the mount has its
    limits at the mount.
    """
    inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    while inside.parts:
        yield mount.point / inside
        inside = inside.parent
    yield mount.point


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
