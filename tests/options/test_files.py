"""Files that options name, as editors and other systems write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamabox.options import OPTIONS
from llamabox.options.values.files import MAX_TEXT, json_schema_of_file
from tests.options.test_commandline import made, refused

TEXT_FILES = [
    o
    for o in OPTIONS
    if o.parse not in (None, json_schema_of_file)
    and o.parse.__module__.endswith(".values.files")
    and o.metavar == "FILE"
]

ENCODINGS = {
    "plain": ("utf-8", "\n"),
    "byte order mark": ("utf-8-sig", "\n"),
    "Windows": ("utf-8-sig", "\r\n"),
    "PowerShell": ("utf-16", "\r\n"),
    "old Mac": ("utf-8", "\r"),
}


@pytest.mark.parametrize("how", ENCODINGS)
def test_a_key_file_has_comments_blank_lines_and_any_line_ends(how: str, tmp_path: Path) -> None:
    encoding, end = ENCODINGS[how]
    file = tmp_path / "keys"
    lines = ["# keys of the team", "", "  one ", "   # Ünal's", "two#2", "\t"]
    file.write_bytes(end.join(lines).encode(encoding))
    assert made("--api-key-file", str(file))[1].api_keys == {"one", "two#2"}


def test_a_key_file_with_comments_alone_holds_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\ufeff# one\n#two\n", encoding="utf-8")
    assert "holds no key" in refused("--api-key-file", str(file))


@pytest.mark.parametrize("how", ENCODINGS)
def test_a_json_schema_in_a_file(how: str, tmp_path: Path) -> None:
    encoding, end = ENCODINGS[how]
    file = tmp_path / "schema"
    schema = ["{", '"enum": ["é"]', "}"]
    file.write_bytes(end.join(schema).encode(encoding))
    assert made("-jf", str(file)) == made("-j", "".join(schema))
    file.write_text("{")
    assert "--json-schema-file" in refused("--json-schema-file", str(file))


def test_the_text_files_are_those_that_options_name() -> None:
    assert {option.flags[-1] for option in TEXT_FILES} >= {"--api-key-file", "--chat-template-file", "--grammar-file"}


@pytest.mark.parametrize("how", ENCODINGS)
@pytest.mark.parametrize("option", TEXT_FILES, ids=lambda option: option.flags[-1])
def test_a_text_file_is_its_text_however_it_was_saved(option: object, how: str, tmp_path: Path) -> None:
    encoding, end = ENCODINGS[how]
    file, plain = tmp_path / "file", tmp_path / "plain"
    lines = ['root ::= "é"', "x ::= root", ""]
    file.write_bytes(end.join(lines).encode(encoding))
    plain.write_bytes("\n".join(lines).encode())
    flag = option.flags[-1]  # type: ignore[attr-defined]
    assert made(flag, str(file)) == made(flag, str(plain))


@pytest.mark.parametrize("option", TEXT_FILES, ids=lambda option: option.flags[-1])
def test_what_is_no_text_file_is_said(option: object, tmp_path: Path) -> None:
    flag = option.flags[-1]  # type: ignore[attr-defined]
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xff\x00")
    assert "not UTF-8 text" in refused(flag, str(bad))
    assert f"more than {MAX_TEXT >> 20} MiB" in refused(flag, "/dev/zero")
    assert "NUL" in refused(flag, "a\0b")
    reading, writing = os.pipe()
    os.write(writing, b'\xef\xbb\xbfroot ::= "a"\n')
    os.close(writing)
    assert made(flag, f"/dev/fd/{reading}"), "a shell's <(command)"
    os.close(reading)
