"""How much memory may still be taken: by the machine, and by the container that it is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamabox.machine import free_memory
from tests.machine.cgroup_tree import CgroupTree, put

MACHINE = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\nHugePages_Total: 0\n"


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    return CgroupTree(tmp_path)


def available(tree: CgroupTree) -> int | None:
    return free_memory.available(tree.at / "meminfo", tree.proc)


def limit(folder: Path, most: str, taken: int, version: int = 2) -> None:
    names = ("memory_max", "memory_current") if version == 2 else ("memory_limit_in_bytes", "memory_usage_in_bytes")
    stat = ["anon 70", "file 30", "active_file 10", "inactive_file 20"]
    if version == 1:
        stat = ["inactive_file 1", *(f"total_{line}" for line in stat)]
    put(folder, **dict(zip(names, (most, taken), strict=True)), memory_stat="\n".join(stat))


def test_where_the_system_does_not_tell(tree: CgroupTree) -> None:
    assert available(tree) is None


def test_of_a_machine(tree: CgroupTree) -> None:
    (tree.at / "meminfo").write_text(MACHINE)
    assert available(tree) == 600 << 10
    tree.inside("0::/")
    limit(tree.mount("cgroup"), "max", 100)
    assert available(tree) == 600 << 10, "a container without a limit"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("most", "left"), [(500, 430), (100, 30), (50, 0), (10 << 20, 600 << 10)])
def test_of_a_container(tree: CgroupTree, most: int, left: int, version: int) -> None:
    (tree.at / "meminfo").write_text(MACHINE)
    tree.inside("0::/" if version == 2 else "5:memory:/docker/0123")
    limit(tree.mount("cgroup", "" if version == 2 else "memory"), str(most), 100, version)
    assert available(tree) == left


@pytest.mark.parametrize("version", [1, 2])
def test_of_the_group_that_has_least_left(tree: CgroupTree, version: int) -> None:
    tree.inside("0::/a.slice/b/c" if version == 2 else "5:memory:/a.slice/b/c")
    point = tree.mount("cgroup", "" if version == 2 else "memory")
    limit(point / "a.slice", "1000", 900, version)
    limit(point / "a.slice" / "b", "700", 400, version)
    limit(point / "a.slice" / "b" / "c", "max" if version == 2 else str(2**63 - 4096), 10, version)
    assert available(tree) == 130


def test_of_this_machine() -> None:
    found = free_memory.available()
    assert found is None or found > 0
