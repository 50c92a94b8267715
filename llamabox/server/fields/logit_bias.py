"""The logit_bias of a request: an array of `[id or text, bias]` pairs, or an object `{"id or text": bias}`.

A bias is a number, or false for a ban. OpenAI's -100 stays the number it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llamabox import checks
from llamabox.checks import wrong
from llamabox.engine.request import GenerationParams
from llamabox.server.fields.prompt import check_token
from llamabox.server.seams import TextService
from llamabox.wire.questions import Tokenise

FIELD = "logit_bias"
MAX_ENTRIES = 4096
MAX_TEXT = 1024
LARGEST_BIAS = 1e12
"""Added to a logit, divided by the smallest temperature and multiplied by the largest penalty it is still a float32."""

BiasEntry = tuple[int | str, float]


def parse_logit_bias(value: Any, n_vocab: int) -> list[BiasEntry]:
    """Entries in order. A text biases each token it becomes; an id outside the vocabulary is a 400."""
    if isinstance(value, dict):
        pairs: Iterable[tuple[Any, Any]] = ((_key(key), bias) for key, bias in value.items())
    elif isinstance(value, list):
        if not all(isinstance(entry, list) and len(entry) == 2 for entry in value):
            raise wrong(FIELD, "each entry must be a pair [token id or text, number or false]")
        pairs = ((entry[0], entry[1]) for entry in value)
    else:
        raise wrong(FIELD, f"must be an array of pairs or an object, not {checks.describe(value)}")
    if len(value) > MAX_ENTRIES:
        raise wrong(FIELD, f"must have at most {MAX_ENTRIES} entries, not {len(value)}")
    return [(_token(token, n_vocab), _bias(bias)) for token, bias in pairs]


async def biased(client: TextService, params: GenerationParams, entries: list[BiasEntry]) -> GenerationParams:
    """`params` with the entries added to its biases: what replies show is what the engine is given.

    The last of several for one token counts. Raises InvalidRequest where they become too many.
    """
    if not entries:
        return params
    sampling = params.sampling
    found = dict(sampling.logit_bias) | await _by_token(client, entries)
    return replace(params, sampling=replace(sampling, logit_bias=tuple(found.items())))


async def _by_token(client: TextService, entries: list[BiasEntry]) -> dict[int, float]:
    found: dict[int, float] = {}
    for token, bias in entries:
        if isinstance(token, int):
            found[token] = bias
            continue
        made = await client.ask(Tokenise([token], add_special=False, parse_special=True))
        found.update((one, bias) for one in made.tokens)
        if len(found) > MAX_ENTRIES:
            raise wrong(FIELD, f"its texts become more than {MAX_ENTRIES} tokens")
    return found


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
