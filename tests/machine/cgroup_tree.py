"""A system's control groups as plain files: what /proc/self says of them, and their folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class CgroupTree:
    """`at` is an empty folder; `proc` then stands for /proc/self."""

    at: Path
    mounts: list[str] = field(default_factory=list)

    @property
    def proc(self) -> Path:
        folder = self.at / "proc"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def inside(self, *lines: str) -> None:
        """The groups of this process, as /proc/self/cgroup has them."""
        (self.proc / "cgroup").write_text("".join(line + "\n" for line in lines))

    def mount(self, name: str, controllers: str = "", root: str = "/") -> Path:
        """A tree of version 1 with these controllers, or of version 2 without any. Returns its folder."""
        point = self.at / "fs" / name
        point.mkdir(parents=True, exist_ok=True)
        kind, options = ("cgroup", f"rw,{controllers}") if controllers else ("cgroup2", "rw")
        escaped = str(point).replace(" ", r"\040")
        self.mounts.append(f"{len(self.mounts) + 30} 25 0:29 {root} {escaped} rw,relatime - {kind} {kind} {options}\n")
        (self.proc / "mountinfo").write_text("25 1 0:2 / / rw - ext4 /dev/vda rw\n" + "".join(self.mounts))
        return point


def put(folder: Path, **files: object) -> None:
    """Files of a group; `cpu_max` is cpu.max."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")
