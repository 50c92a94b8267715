"""A text ends where a line begins with too few blanks, however the text is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.text.indentation import Indentation

TEXTS = st.text("a \t\n", max_size=40)


def end_of(text: str, n_min: int) -> int | None:
    """Line by line. A line that ends amid its blanks may yet be long enough."""
    at = 0
    for i, line in enumerate(text.split("\n")):
        n_blanks = len(line) - len(line.lstrip(" \t"))
        is_decided = n_blanks < len(line) or at + len(line) < len(text)
        if i and is_decided and n_blanks < n_min:
            return at + n_blanks
        at += len(line) + 1
    return None


@given(TEXTS, st.integers(0, 4), st.lists(st.integers(0, 40), max_size=6))
def test_the_end_does_not_depend_on_the_pieces(text: str, n_min: int, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    follower = Indentation(n_min)
    found = None
    for start, stop in pairwise(places):
        end = follower.find_end(text[start:stop])
        if end is not None:
            found = start + end
            break
    assert found == (end_of(text, n_min) if n_min else None)
