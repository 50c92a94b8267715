"""The text of a prompt is said along with its tokens, whatever these are of the text."""

from __future__ import annotations

import pytest

from llamabox.engine.events import Likely, TokenProbs
from llamabox.server.api.openai.completions.echo import Echo


def told(*pieces: bytes) -> list[TokenProbs]:
    return [TokenProbs(Likely(i, piece, -1.0), []) for i, piece in enumerate(pieces)]


@pytest.mark.parametrize(
    ("text", "pieces", "offsets"),
    [
        ("Hi you", [b"Hi", b" you"], [0, 2]),
        ("Hi you", [b"<s>", b" Hi", b" you"], [0, 0, 2]),  # a BOS, and the blank that SentencePiece puts before a text
        ("a🌍b", [b"a", b"\xf0\x9f", b"\x8c\x8d", b"b"], [0, 1, 1, 2]),
        ("HELLO you", [b"hello", b" you"], [0, 0]),  # a vocabulary that changes texts
        ("", [b"<s>"], [0]),
    ],
)
def test_text_and_offsets(text: str, pieces: list[bytes], offsets: list[int]) -> None:
    for n_first in range(len(pieces) + 1):
        echo = Echo(text)
        parts = [echo.say(told(*pieces[:n_first])), echo.say(told(*pieces[n_first:]))]
        entries = [entry for _, found in parts for entry in found]
        assert [entry.offset for entry in entries] == offsets
        assert [entry.follows for entry in entries] == [False] + [True] * (len(pieces) - 1)
        assert "".join(said for said, _ in parts) + echo.rest() == text
        assert echo.rest() == ""
