"""The number of likeliest tokens that a request wants to see: each route has fields of its own for it."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong

MAX_PROBS = 256
"""Likeliest tokens that a request may see at each place. Each costs the engine's thread and the event loop about a
microsecond or two a token: a whole vocabulary held everybody up for two seconds. Clients ask for tens."""

MAX_CHAT = 20
MAX_COMPLETION = 5
"""OpenAI's own bounds of `top_logprobs`, and of `logprobs` on /v1/completions."""


def native_n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """`n_probs`, else `logprobs` as another name of it; 0 asks for nothing. None: no log-probabilities at all."""
    _refuse_top_logprobs(body)
    field = "n_probs" if "n_probs" in body else "logprobs"
    if body.get(field, False) is False:
        return None
    return min(checks.integer(field, body[field], 0, MAX_PROBS), n_vocab) or None


def completion_n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """OpenAI's legacy `logprobs`: 0 asks for the sampled token alone, more than 5 means 5. Else `n_probs`."""
    _refuse_top_logprobs(body)
    if body.get("logprobs", False) is False:
        return _n_probs(body, n_vocab)
    return min(checks.integer("logprobs", body["logprobs"], 0, INT32_MAX), MAX_COMPLETION, n_vocab)


def chat_n_top(body: dict[str, Any], n_vocab: int) -> int | None:
    """`logprobs: true`, with as many as `top_logprobs` says; or `n_probs`."""
    if checks.flag(body, "logprobs", False):
        return min(checks.whole(body, "top_logprobs", 0, MAX_CHAT, 1), n_vocab)
    if checks.whole(body, "top_logprobs", 0, MAX_CHAT, 0):
        raise wrong("top_logprobs", 'needs "logprobs": true beside it')
    return _n_probs(body, n_vocab)


def _n_probs(body: dict[str, Any], n_vocab: int) -> int | None:
    return min(checks.whole(body, "n_probs", 0, MAX_PROBS, 0), n_vocab) or None


def _refuse_top_logprobs(body: dict[str, Any]) -> None:
    if checks.whole(body, "top_logprobs", 0, INT32_MAX, 0):
        raise wrong("top_logprobs", "is not supported on this route; n_probs says how many")
