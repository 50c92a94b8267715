"""The bytes that a text stands for: a data URI (RFC 2397), or base64 in one of the ways in which clients write it."""

from __future__ import annotations

import binascii
import re
from urllib.parse import unquote_to_bytes

from llamabox.media.decoding.link import Unreadable

MAX_HEAD = 1024
"""Characters of a data URI before its comma."""

BLANKS = b" \t\r\n\f\v"

USUAL = bytes.maketrans(b"-_", b"+/")
"""From the alphabet for URLs to the usual one."""

STRAY = re.compile(rb"[^A-Za-z0-9+/]")

SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,20}:")


def file_of(text: bytearray) -> bytes:
    """The file in a data URI or in base64. Raises Unreadable."""
    start = len(text) - len(text.lstrip(BLANKS))
    if text[start : start + 5].lower() == b"data:":
        return _of_data_uri(text, start + 5)
    if scheme := SCHEME.match(text, start):
        raise Unreadable(
            f"must be base64, a data URI or an address of http, https or file, not of {scheme[0][:-1].decode().lower()}"
        )
    return _of_base64(text)


def _of_data_uri(text: bytearray, start: int) -> bytes:
    comma = text.find(b",", start, start + MAX_HEAD)
    if comma < 0:
        raise Unreadable("must be a data URI with a comma before its data, as data:image/png;base64,…")
    *_, last = text[start:comma].split(b";")
    body = text[comma + 1 :]
    is_base64 = last.strip(BLANKS).lower() == b"base64"
    if not is_base64 or b"%" in body:
        body = bytearray(unquote_to_bytes(bytes(body)))
    return _of_base64(body) if is_base64 else bytes(body)


def _of_base64(text: bytearray) -> bytes:
    bare = text.translate(USUAL, BLANKS).rstrip(b"=")
    if not bare:
        raise Unreadable("is empty; send a file in base64 or as a data URI")
    try:
        if len(bare) % 4 == 1:
            raise binascii.Error("it is cut off")
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error as error:
        stray = STRAY.search(bare)
        reason = str(error) if stray is None else f"{chr(stray[0][0])!r} is no character of it"
        raise Unreadable(f"is not valid base64: {reason}") from error
