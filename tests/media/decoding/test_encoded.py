"""Base64 and data URIs, in every way in which clients write them."""

from __future__ import annotations

import base64
import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.media.decoding.encoded import file_of
from llamabox.media.decoding.link import Unreadable

FILE = bytes(range(256)) + b"~~~???>>>"


def decoded(text: str) -> bytes:
    return file_of(bytearray(text.encode("ascii", "replace")))


def ways(data: bytes) -> dict[str, str]:
    usual = base64.b64encode(data).decode()
    return {
        "plain": usual,
        "unpadded": usual.rstrip("="),
        "for URLs": base64.urlsafe_b64encode(data).decode(),
        "for URLs, unpadded": base64.urlsafe_b64encode(data).decode().rstrip("="),
        "in lines": "\r\n".join(usual[i : i + 76] for i in range(0, len(usual), 76)) + "\n",
        "in lines of one": "\n".join(usual),
        "blanks around": f" \t{usual} ",
        "data": f"data:image/png;base64,{usual}",
        "with parameters": f"data:image/jpeg;charset=utf-8;name=a.jpg;base64,{usual}",
        "without a type": f"data:;base64,{usual}",
        "in capitals": f"\n DATA:IMAGE/PNG;BASE64 ,{usual}",
        "escaped": f"data:image/png;base64,{quote(usual, safe='')}",
        "escaped lines": f"data:image/png;base64,{'%0A'.join(usual)}",
        "not in base64": f"data:image/png,{quote(data)}",
        "not in base64, with parameters": f"data:text/plain;charset=utf-8,{quote(data, safe='')}",
    }


@pytest.mark.parametrize("way", ways(b""))
@pytest.mark.parametrize("n_bytes", [1, 2, 3, len(FILE)])
def test_a_file_is_what_was_encoded(way: str, n_bytes: int) -> None:
    assert decoded(ways(FILE[:n_bytes])[way]) == FILE[:n_bytes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("====", "is empty"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64", "comma before its data"),
        ("data:" + "x" * 10_000 + ",", "comma before its data"),
        ("AAAAA", "it is cut off"),
        ("AAAA=AAAA", "'=' is no character of it"),
        ("AA?A", "'?' is no character of it"),
        ("äöü", "'?' is no character of it"),
        ('{"a": 1}', "'{' is no character of it"),
        ("ftp://images.example/a.png", "not of ftp"),
        ("s3://bucket/a.png", "not of s3"),
        ("C:\\a.png", "is no character of it"),
    ],
)
def test_what_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decoded(text)
    assert said in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_file_or_refused(text: str) -> None:
    for one in (text, f"data:{text}", f"data:image/png;base64,{text}"):
        with contextlib.suppress(Unreadable):
            assert isinstance(decoded(one), bytes)
