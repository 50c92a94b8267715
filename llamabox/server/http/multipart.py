"""multipart/form-data that lies in memory (RFC 7578, RFC 2046).

Starlette's parser writes files to a disk, which a server need not have, and python-multipart refuses what comes before
the first boundary and blanks behind one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from llamabox.errors import InvalidRequest

FORM = "multipart/form-data"
UTF_8 = ("utf-8", "utf8", "us-ascii")
MAX_PARTS = 160

MAX_HEADER = 8192
"""Bytes of a part's head."""

LINE_END = re.compile(rb"(--)?[ \t]*(?=\r\n|\Z)")
"""The rest of a boundary's line: the mark of the last boundary, and blanks."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form."""

    name: str
    is_file: bool
    data: bytes

    @property
    def text(self) -> str:
        """The data as a text in UTF-8, or in Latin-1 where it is no UTF-8."""
        return _decoded(self.data)


def content_type(headers: Headers) -> str:
    """What the body says that it is, without parameters: FORM for a form."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_parts(headers: Headers, raw: bytearray, max_text: int) -> list[Part]:
    """The parts of a body that is a form, whose texts have at most `max_text` bytes. Raises InvalidRequest."""
    _, params = parse_options_header(headers.get("content-type"))
    charset = params.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in UTF_8:  # some of Python's other codecs take for ever
        raise InvalidRequest(f"the form is written in {charset[:40]}, which is not read; send it in UTF-8")
    boundary = params.get(b"boundary", b"")
    return await asyncio.to_thread(parse_form, boundary, raw, max_parts=MAX_PARTS, max_text=max(max_text, 1))


def parse_form(boundary: bytes, body: bytes | bytearray, *, max_parts: int, max_text: int) -> list[Part]:
    """The parts in their order; what comes before the first boundary and behind the last is nothing.

    Raises InvalidRequest for a form that is cut off or no form, has over `max_parts`, or a text over `max_text` bytes.
    """
    if not 0 < len(boundary) <= 70:
        raise InvalidRequest(
            "a multipart/form-data body needs its boundary, of 1 to 70 characters, in the Content-Type"
        )
    parts: list[Part] = []
    for start, end in _spans(boundary, body):
        if len(parts) == max_parts:
            raise InvalidRequest(f"Too many parts: a form has at most {max_parts}")
        part = _part(body, start, end)
        if not part.is_file and len(part.data) > max_text:
            raise InvalidRequest(f"'{part.name[:40]}' is longer than the {max_text} bytes that a text may have")
        parts.append(part)
    return parts


def _spans(boundary: bytes, body: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Start and end of each part, without the line breaks around it."""
    mark = b"--" + boundary
    at = 0 if body.startswith(mark) else _find(body, b"\r\n" + mark, 0) + 2
    while True:
        end_of_line = LINE_END.match(body, at + len(mark))
        if end_of_line is None:
            raise InvalidRequest("Invalid multipart/form-data: a boundary is followed by something else in its line")
        if end_of_line[1]:
            return
        start = end_of_line.end() + 2
        # The line break of an empty part's boundary may be that of the next one.
        at = _find(body, b"\r\n" + mark, start - 2) + 2
        yield start, max(start, at - 2)


def _find(body: bytes | bytearray, what: bytes, start: int) -> int:
    found = body.find(what, start)
    if found < 0:
        raise InvalidRequest("the form is cut off: it does not end with its boundary")
    return found


def _part(body: bytes | bytearray, start: int, end: int) -> Part:
    """A head, an empty line, and the data."""
    limit = min(end, start + MAX_HEADER)
    head_end = start - 2 if body.startswith(b"\r\n", start) else body.find(b"\r\n\r\n", start, limit)
    head = bytes(body[start : max(start, head_end)])
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"content-disposition":
            kind, options = parse_options_header(value.decode("latin-1"))
            if kind == b"form-data" and b"name" in options:
                data = bytes(body[head_end + 4 : end])
                return Part(_decoded(options[b"name"]), b"filename" in options, data)
    raise InvalidRequest(
        "Invalid multipart/form-data: each part begins with a line 'Content-Disposition: form-data; name=\"…\"', "
        "and an empty line ends its head"
    )


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
