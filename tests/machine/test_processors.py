"""Processors: what control groups allow is seen wherever it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import build_native
from llamabox.machine import cgroups, processors
from tests.machine.cgroup_tree import CgroupTree, put


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    return CgroupTree(tmp_path / "a system")


def test_a_container_of_version_2(tree: CgroupTree) -> None:
    tree.inside("0::/")
    put(tree.mount("cgroup"), cpu_max="150000 100000")
    assert processors.cpu_quota(tree.proc) == 1.5


def test_no_limit_at_all(tree: CgroupTree) -> None:
    assert processors.cpu_quota(tree.proc) is None
    tree.inside("4:cpu,cpuacct:/a", "0::/b")
    assert processors.cpu_quota(tree.proc) is None
    put(tree.mount("unified") / "b", cpu_max="max 100000")
    put(tree.mount("cpu", "cpu,cpuacct") / "a", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    assert processors.cpu_quota(tree.proc) is None


@pytest.mark.parametrize(
    ("outer", "inner", "quota"), [("200000", "300000", 2), ("300000", "50000", 0.5), ("max", "1000", 0.01)]
)
def test_the_least_of_nested_groups_counts(tree: CgroupTree, outer: str, inner: str, quota: float) -> None:
    """A service in a slice, and a container that sees the host's groups (--cgroupns=host)."""
    tree.inside("0::/system.slice/docker-0123.scope/worker")
    point = tree.mount("cgroup")
    put(point / "system.slice", cpu_max=f"{outer} 100000")
    put(point / "system.slice" / "docker-0123.scope", cpu_max=f"{inner} 100000")
    put(point / "system.slice" / "docker-0123.scope" / "worker")
    put(point / "other.slice", cpu_max="1 100000")
    assert processors.cpu_quota(tree.proc) == quota


def test_version_1(tree: CgroupTree) -> None:
    tree.inside("9:memory:/m", "4:cpu,cpuacct:/batch/job 7", "1:name=systemd:/x", "0::/")
    tree.mount("unified")
    put(tree.mount("memory", "memory") / "batch", cpu_cfs_quota_us=1, cpu_cfs_period_us=100000)
    point = tree.mount("cpu,cpuacct", "cpu,cpuacct")
    put(point / "batch" / "job 7", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    put(point / "batch", cpu_cfs_quota_us=125000, cpu_cfs_period_us=50000)
    assert processors.cpu_quota(tree.proc) == 2.5


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("own", "root"),
    [
        ("/docker/0123", "/docker/0123"),  # the container's group is mounted, the system tells the host's path
        ("/docker/0123", "/"),  # or the mount says nothing of that: Docker with version 1
        ("/../sibling", "/"),  # moved out of the part that is seen
        ("/", "/.."),
        ("/elsewhere", "/docker/0123"),
    ],
)
def test_a_container_that_sees_its_own_part_alone(tree: CgroupTree, version: int, own: str, root: str) -> None:
    if version == 1:
        tree.inside(f"3:cpu:{own}")
        put(tree.mount("cpu", "cpu", root), cpu_cfs_quota_us=70000, cpu_cfs_period_us=100000)
    else:
        tree.inside(f"0::{own}")
        put(tree.mount("cgroup", "", root), cpu_max="70000 100000")
    assert processors.cpu_quota(tree.proc) == 0.7


def test_both_versions_beside_each_other(tree: CgroupTree) -> None:
    tree.inside("3:cpu:/a", "0::/b")
    put(tree.mount("cpu", "cpu") / "a", cpu_cfs_quota_us=300000, cpu_cfs_period_us=100000)
    put(tree.mount("unified") / "b", cpu_max="200000 100000")
    assert processors.cpu_quota(tree.proc) == 2


@pytest.mark.parametrize("text", ["", "max", "abc 100000", "5 0", "5", "-5 100", "\0"])
def test_files_that_say_nothing(tree: CgroupTree, text: str) -> None:
    tree.inside("0::/", "", "nonsense", "1:2")
    put(tree.mount("cgroup"), cpu_max=text)
    with (tree.proc / "mountinfo").open("a") as file:
        file.write("short - cgroup\n - \n\n")
    assert processors.cpu_quota(tree.proc) is None


def test_no_more_threads_or_compilers_than_the_quota(tree: CgroupTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "allowed", lambda: frozenset(range(64)))
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.5)
    assert (processors.n_logical(), processors.n_physical({1, 2, 3, 4, 5, 6}), build_native.cores()) == (3, 3, 3)
    monkeypatch.setattr(processors, "cpu_quota", lambda: 0.2)
    assert (processors.n_logical(), processors.n_physical(), build_native.cores()) == (1, 1, 1)
    monkeypatch.setattr(processors, "cpu_quota", lambda: None)
    assert processors.n_logical({70}) == 1
    assert (processors.n_logical(), build_native.cores()) == (64, 64)


def test_this_system_is_understood() -> None:
    assert processors.n_logical() >= 1
    assert all(group.folder.is_dir() for group in cgroups.groups("cpu")) or not cgroups.SELF.exists()
