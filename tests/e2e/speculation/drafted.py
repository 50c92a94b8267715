"""Answers that were drafted.

Whether drafts pay is for the price to say, which measures a machine that may be busy with other things as well: so an
answer is asked for until one was drafted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TRIES = 20

Reply = dict[str, Any]


def n_accepted(reply: Reply) -> int:
    """Tokens of drafts in an answer, on any route."""
    if "usage" in reply:
        foreseen: int = reply["usage"]["completion_tokens_details"]["accepted_prediction_tokens"]
        return foreseen
    found: int = reply["timings"].get("draft_n_accepted", 0)
    return found


def until_drafted(ask: Callable[[], Reply], *, more_than: int = 0, count: Callable[[Reply], int] = n_accepted) -> Reply:
    """The first answer with `more_than` so many tokens of drafts, by `count`."""
    counts = []
    for _ in range(TRIES):
        reply = ask()
        counts.append(count(reply))
        if counts[-1] > more_than:
            return reply
    raise AssertionError(f"tokens of drafts, in each of {TRIES} answers: {counts}")
