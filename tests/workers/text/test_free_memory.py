"""How much memory may still be taken: by the machine, and by the container that it is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamabox.workers.text import free_memory

MACHINE = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\nHugePages_Total: 0\n"


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the files of a system, of which there are none yet."""
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    return tmp_path


def limit(system: Path, most: str, taken: int) -> None:
    (system / "memory.max").write_text(most + "\n")
    (system / "memory.current").write_text(f"{taken}\n")
    (system / "memory.stat").write_text("anon 70\nfile 30\nactive_file 10\ninactive_file 20\n")


def test_where_the_system_does_not_tell(system: Path) -> None:
    assert free_memory.available() is None


def test_of_a_machine(system: Path) -> None:
    (system / "meminfo").write_text(MACHINE)
    assert free_memory.available() == 600 << 10
    limit(system, "max", 100)
    assert free_memory.available() == 600 << 10, "a container without a limit"


@pytest.mark.parametrize(("most", "left"), [(500, 430), (100, 30), (50, 0), (10 << 20, 600 << 10)])
def test_of_a_container(system: Path, most: int, left: int) -> None:
    (system / "meminfo").write_text(MACHINE)
    limit(system, str(most), 100)
    assert free_memory.available() == left


def test_of_this_machine() -> None:
    found = free_memory.available()
    assert found is None or found > 0
