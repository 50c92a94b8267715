"""Texts that a schema's grammar allows, chosen at random, with a vocabulary of single bytes."""

from __future__ import annotations

import json
import random
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from llamabox.grammar.guidance import complaint, limits, schema_grammar
from llamabox.workers.text.grammars.trial import Bytes

TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()))
LIKED = b'",:{}[]ab1'
"""Bytes that bring a text to its end, and names that the tests use."""

MAX_BYTES = 400


def refusal(schema: dict[str, Any]) -> str | None:
    """Why llguidance will not have the schema; None where it will."""
    return complaint(matcher(schema))


def matcher(schema: dict[str, Any]) -> LLMatcher:
    return LLMatcher(TOKENIZER, schema_grammar(json.dumps(schema)), log_level=0, limits=limits())


def walk(schema: dict[str, Any], seed: int) -> str | None:
    """A text that fits; None where it grows too long. Fails at a dead end: a beginning that nothing can follow."""
    chance = random.Random(seed)
    made = matcher(schema)
    text = bytearray()
    while len(text) < MAX_BYTES:
        mask = int.from_bytes(made.deep_copy().compute_bitmask(), "little") & (1 << 256) - 1
        if made.is_stopped() or (mask == 0 and made.is_accepting()):
            return text.decode()
        made.compute_bitmask()
        assert complaint(made) is None, f"{complaint(made)} behind {text.decode()}"
        allowed = [byte for byte in range(256) if mask >> byte & 1]
        assert allowed, f"a dead end behind {text.decode()}"
        liked = [byte for byte in allowed if byte in LIKED]
        text.append(chance.choice(liked or allowed))
        made.consume_token(text[-1])
    return None
