"""A machine of plain files, for what cannot be had here: other processors, limits of control groups, GPUs."""

from __future__ import annotations

from pathlib import Path

from llamabox.doctor.system import System
from tests.machine.cgroup_tree import CgroupTree, put

AVX2 = "fpu pni ssse3 avx avx2 f16c fma bmi2"
WITHOUT_AVX2 = "fpu pni ssse3 avx"


def made_system(root: Path, *, flags: str = "", limit_mib: int = 0, cpu_max: str = "") -> System:
    """`flags` are the processor's; 0 and "" mean that there is no limit."""
    tree = CgroupTree(root / "groups")
    tree.inside("0::/box")
    files = {"memory_max": limit_mib << 20, "memory_current": 0} if limit_mib else {}
    put(tree.mount("unified") / "box", **files, **({"cpu_max": cpu_max} if cpu_max else {}))
    (root / "proc").mkdir()
    (root / "proc" / "self").symlink_to(tree.proc)
    kilobytes = 16 << 20
    (root / "proc" / "meminfo").write_text(f"MemTotal: {kilobytes} kB\nMemAvailable: {kilobytes} kB\n")
    if flags:
        (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Made Processor\nflags\t\t: {flags}\n")
    return System(root)


def add_gpu(root: Path, vendor: str) -> None:
    """A display on the bus, by its maker's number."""
    folder = root / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "class").write_text("0x030200\n")
    (folder / "vendor").write_text(f"{vendor}\n")
