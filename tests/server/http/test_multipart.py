"""Forms as RFC 2046 and RFC 7578 allow them, and as they do not."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.errors import InvalidRequest
from llamabox.server.http.multipart import Part, parse_form

NAMED = b'Content-Disposition: form-data; name="a"'
FILE = NAMED + b'; filename="x.png"\r\nContent-Type: image/png'


def parse(body: bytes, boundary: bytes = b"b") -> list[Part]:
    return parse_form(boundary, body, max_parts=8, max_text=100)


ONE = [Part("a", False, b"1")]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b--\r\n", ONE),
        (b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b--", ONE),
        (b"This is a message in parts.\r\n--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b--\r\nNothing follows.\r\n", ONE),
        (b"\r\n--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b--\r\n", ONE),
        (b"--b \t \r\n" + NAMED + b"\r\n\r\n1\r\n--b--  \r\n", ONE),
        (b"--b\r\ncontent-disposition:form-data;name=a\r\n\r\n1\r\n--b--", ONE),
        (b"--b\r\nX: y\r\n" + NAMED + b"\r\nZ: z\r\n\r\n1\r\n--b--", ONE),
        (b"--b\r\n" + NAMED + b"\r\n\r\n\r\n--b--", [Part("a", False, b"")]),
        (b"--b\r\n" + NAMED + b"\r\n\r\n\r\n\r\n--b--", [Part("a", False, b"\r\n")]),
        (b"--b\r\n" + NAMED + b"\r\n\r\n--\r\n-b--b\r\n--b--", [Part("a", False, b"--\r\n-b--b")]),
        (b"--b\r\n" + FILE + b"\r\n\r\n" + bytes(200) + b"\r\n--b--", [Part("a", True, bytes(200))]),
        (b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b\r\n" + FILE + b"\r\n\r\n2\r\n--b--", [*ONE, Part("a", True, b"2")]),
        (b"--b--", []),
        (b"--b--\r\n--b\r\n" + NAMED + b"\r\n\r\n1\r\n--b--", []),
    ],
)  # fmt: skip
def test_forms_that_are_read(body: bytes, parts: list[Part]) -> None:
    assert parse(body) == parts


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cut off"), (b"--b", "cut off"), (b"--b\r\n", "cut off"), (b"nothing", "cut off"), (b"x--b--", "cut off"),
        (b"--b\r\n" + NAMED + b"\r\n\r\n1", "cut off"), (b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n--", "cut off"),
        (b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n--bb--", "something else"), (b"--b--x", "something else"),
        (b"--b\r\n\r\n1\r\n--b--", "Content-Disposition"), (b"--b\r\n" + NAMED + b"\r\n--b--", "Content-Disposition"),
        (b"--b\r\n--b--", "Content-Disposition"), (b"--b\r\n\r\n--b--", "Content-Disposition"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--", "Content-Disposition"),
        (b"--b\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--b--", "Content-Disposition"),
        (b"--b\r\nX: " + b"x" * 9000 + b"\r\n" + NAMED + b"\r\n\r\n1\r\n--b--", "Content-Disposition"),
        (b"--b\r\n" + NAMED + b"\r\n\r\n" + b"1" * 101 + b"\r\n--b--", "'a' is longer"),
        ((b"--b\r\n" + NAMED + b"\r\n\r\n1\r\n") * 9 + b"--b--", "Too many parts"),
    ],
)  # fmt: skip
def test_forms_that_are_none(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse(body)


@pytest.mark.parametrize("boundary", [b"", b"x" * 71])
def test_a_boundary_is_needed(boundary: bytes) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        parse(b"--" + boundary + b"--", boundary)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=8), st.binary(max_size=20))
def test_what_was_written_is_read(fields: list[tuple[bool, bytes]], around: bytes) -> None:
    boundary = os.urandom(8).hex().encode()
    body = around + b"\r\n"
    for is_file, data in fields:
        body += b"--" + boundary + b"\r\n" + (FILE if is_file else NAMED) + b"\r\n\r\n" + data + b"\r\n"
    body += b"--" + boundary + b"--\r\n" + around
    assert parse(body, boundary) == [Part("a", is_file, data) for is_file, data in fields]
