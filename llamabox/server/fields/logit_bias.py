"""The logit_bias of a request: an array of `[id or text, bias]` pairs, or an object `{"id or text": bias}`.

A bias is a number, or false for a ban. OpenAI's -100 stays the number it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llamabox import checks
from llamabox.checks import wrong
from llamabox.engine.request import MAX_BIASES
from llamabox.server.fields.prompt import check_token

FIELD = "logit_bias"
MAX_TEXT = 1024
LARGEST_BIAS = 1e12
"""Added to a logit, divided by the smallest temperature and multiplied by the largest penalty it is still a float32."""

Biases = tuple[tuple[int | str, float], ...]


def parse_logit_bias(value: Any, n_vocab: int) -> Biases:
    """Entries in order. A text biases each token it becomes; an id outside the vocabulary is a 400."""
    if isinstance(value, dict):
        pairs: Iterable[tuple[Any, Any]] = ((_key(key), bias) for key, bias in value.items())
    elif isinstance(value, list):
        if not all(isinstance(entry, list) and len(entry) == 2 for entry in value):
            raise wrong(FIELD, "each entry must be a pair [token id or text, number or false]")
        pairs = ((entry[0], entry[1]) for entry in value)
    else:
        raise wrong(FIELD, f"must be an array of pairs or an object, not {checks.describe(value)}")
    if len(value) > MAX_BIASES:
        raise wrong(FIELD, f"must have at most {MAX_BIASES} entries, not {len(value)}")
    return tuple((_token(token, n_vocab), _bias(bias)) for token, bias in pairs)


def merged(defaults: Biases, entries: Biases) -> Biases:
    """The biases of a request on top of the server's own. Of several for one token the last one counts.

    Where there are texts the worker does that, which knows their tokens.
    """
    both = (*defaults, *entries)
    return both if any(isinstance(token, str) for token, _ in entries) else tuple(dict(both).items())


def _key(key: str) -> int | str:
    digits = key[1:] if key.startswith("-") else key
    return int(key) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else key


def _token(token: Any, n_vocab: int) -> int | str:
    if isinstance(token, str):
        if not token or len(token) > MAX_TEXT:
            raise wrong(FIELD, f"a text must have 1 to {MAX_TEXT} characters")
        return token
    if isinstance(token, bool) or not isinstance(token, int):
        raise wrong(FIELD, f"a token must be an id or a text, not {checks.describe(token)}")
    check_token(FIELD, token, n_vocab)
    return token


def _bias(bias: Any) -> float:
    if bias is False:
        return -math.inf
    return checks.number(FIELD, bias, -LARGEST_BIAS, LARGEST_BIAS)
