"""Names of slot files: a plain name inside the folder, or 400."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamabox.errors import InvalidRequest
from llamabox.server.api.about.slot_files import is_filename, slot_path


@pytest.mark.parametrize("name", ["a", "chat-1.bin", "mit Leerzeichen.x", "日本語", "ﬁn²", "x" * 255])
def test_plain_names_are_taken(name: str, tmp_path: Path) -> None:
    assert slot_path(tmp_path, name) == tmp_path / name


SEPARATORS = ["a/b", "../a", "a\\b", "a:b", "a*", "a?", 'a"', "a<", "a>", "a|"]
DOTS_AND_SPACES = ["", ".", "..", " a", "a ", "a.", "a..b", ".a", "\u3000a"]
CONTROLS = ["a\x00", "a\n", "a\x7f", "a\x85"]
LOOK_ALIKES = [
    "\uff0e\uff0e",
    "a\u2215b",
    "a\u2216b",
    "a\u2044b",
    "a\uff0fb",
    "a\ufe68b",
    "a\u2025b",
    "\u2024a",
    "\uff0ea",
    "a\uff0eb",
    "a\ufffd",
    "\ufeffa",
    "\ud800",
]
TOO_LONG = ["x" * 256, "é" * 128]


@pytest.mark.parametrize("name", [*SEPARATORS, *DOTS_AND_SPACES, *CONTROLS, *LOOK_ALIKES, *TOO_LONG])
def test_bad_names_are_refused(name: str) -> None:
    assert not is_filename(name)


@pytest.mark.parametrize("name", [None, 5, ["a"], {}])
def test_what_is_no_text_is_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="filename"):
        slot_path(tmp_path, name)


def test_a_link_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    folder = tmp_path / "slots"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(InvalidRequest, match="link"):
        slot_path(folder, "link")
