"""Control tokens in texts between a worker and the readers of answers.

A token such as `<|channel|>` is no text: whoever types these letters must not be taken for it. Where a reader of
answers wants to see some control tokens, each stands in the text as a character of its own, from FIRST_MARK on.
Unicode keeps these characters for a program's own use; where a model writes one it becomes U+FFFD.
"""

from __future__ import annotations

FIRST_MARK = 0xFDD0
N_MARKS = 32


def mark(i: int) -> str:
    """The character for the i-th of a request's control tokens."""
    assert i < N_MARKS
    return chr(FIRST_MARK + i)


def is_mark(character: str) -> bool:
    return FIRST_MARK <= ord(character) < FIRST_MARK + N_MARKS


NO_MARKS = dict.fromkeys(range(FIRST_MARK, FIRST_MARK + N_MARKS))
"""For str.translate: leaves marks out."""

REPLACED = dict.fromkeys(range(FIRST_MARK, FIRST_MARK + N_MARKS), "\ufffd")
"""For str.translate: what a model writes is no mark."""
