"""The number of likeliest tokens that a request wants to see. Each API has further fields for it."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong

MAX_PROBS = 256
"""Likeliest tokens that a request may see at each place. Each costs the engine's thread and the event loop about a
microsecond or two a token: a whole vocabulary held everybody up for two seconds. Clients ask for tens."""


def n_probs(body: dict[str, Any], n_vocab: int) -> int | None:
    """`n_probs`, which every API takes; None: no log-probabilities at all."""
    return min(checks.whole(body, "n_probs", 0, MAX_PROBS, 0), n_vocab) or None


def refuse_top_logprobs(body: dict[str, Any]) -> None:
    """Raises InvalidRequest for `top_logprobs` on a route that has other words for it."""
    if checks.whole(body, "top_logprobs", 0, INT32_MAX, 0):
        raise wrong("top_logprobs", "is not supported on this route; n_probs says how many")
