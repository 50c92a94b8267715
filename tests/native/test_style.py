"""C and C++ of ours keep the width that .clang-format gives them, comments too, which it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("added", "helper") for path in (ROOT / "native" / folder).iterdir() if path.suffix != ".cmake"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_line_is_wider_than_the_screen(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 or "\t" in line or line != line.rstrip()] == []
