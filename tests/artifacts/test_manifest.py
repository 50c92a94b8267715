"""How a file of a native prefix is known again."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamabox.artifacts import manifest


def test_a_large_file_is_known_by_its_size_and_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "WHOLE_FILE", 100)
    monkeypatch.setattr(manifest, "EDGE", 10)
    file = tmp_path / "file"
    seen = set()
    for content in (b"a" * 200, b"b" + b"a" * 199, b"a" * 199 + b"b", b"a" * 201):
        file.write_bytes(content)
        seen.add(manifest.fingerprint(file))
    assert len(seen) == 4
