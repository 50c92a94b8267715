"""Option values that are files or folders. Raise ValueError as those of `common` do."""

from __future__ import annotations

import codecs
from pathlib import Path

from llamabox.options.values.common import json_schema

MAX_TEXT = 16 << 20
"""Bytes of a text file. The largest chat templates have 60 thousand; /dev/zero has no end."""


def folder(text: str) -> str:
    """A folder that exists."""
    if "\0" in text or not Path(text).is_dir():
        raise ValueError("expected a folder that exists")
    return text


def file_text(path: str) -> str:
    r"""The text of a file, its lines ended by `\n`: UTF-8, or UTF-16 with a byte order mark. Marks are no text."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise ValueError(f"cannot read the file: {error.strerror}") from None
    except ValueError:
        raise ValueError("cannot read the file: its name has a NUL in it") from None
    if len(data) > MAX_TEXT:
        raise ValueError(f"the file has more than {MAX_TEXT >> 20} MiB, too much for a text")
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def api_keys_of_file(path: str) -> frozenset[str]:
    """The keys of a file, one a line; blank lines and those that begin with `#` do not count."""
    lines = (line.strip() for line in file_text(path).split("\n"))
    found = frozenset(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise ValueError("the file holds no key")
    return found


def json_schema_of_file(path: str) -> str:
    """A JSON schema."""
    return json_schema(file_text(path))
