"""The forms of `prompt` (docs/api.md, Prompts): a text, token ids, both mixed, or a list of several such prompts."""

from __future__ import annotations

from typing import Any

from llamabox.errors import ContextExceeded
from llamabox.server.fields import numbers
from llamabox.server.fields.numbers import wrong
from llamabox.wire.text_config import ModelInfo

MAX_PROMPTS = 1024

Prompt = list[str | int]
"""Texts and token ids in order."""


def parse_prompts(body: dict[str, Any], info: ModelInfo, field: str = "prompt") -> tuple[list[Prompt], bool]:
    """All prompts of the body, and whether they came as a list of several (so that the reply is one too)."""
    if field not in body:
        raise wrong(field, "is required")
    value = body[field]
    if not isinstance(value, list):
        return [_one(value, info, field)], False
    if not value:
        raise wrong(field, '"prompt" must not be empty')
    kinds = {type(item) for item in value}
    if kinds <= {str, int, float, bool} and kinds != {str}:
        # Numbers, or numbers and texts: one prompt. Texts alone are a prompt each.
        return [_one(value, info, field)], False
    if len(value) > MAX_PROMPTS:
        raise wrong(field, f"must hold at most {MAX_PROMPTS} prompts, not {len(value)}")
    return [_one(item, info, field) for item in value], True


def check_tokens(field: str, value: Any, n_vocab: int) -> None:
    """One item that should be a token id of the vocabulary."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(field, f"a token id must be an integer, not {numbers.describe(value)}")
    if not 0 <= value < n_vocab:
        raise wrong(field, f"token {numbers.describe(value)} is not in the vocabulary; ids go from 0 to {n_vocab - 1}")


def check_fits(prompt: Prompt, info: ModelInfo) -> None:
    """Refuses a prompt that cannot fit however it is tokenised, before anybody spends time on tokenising it.

    No token stands for more bytes than the longest one of the vocabulary. Raises ContextExceeded with that lower bound.
    """
    n_ids = sum(isinstance(item, int) for item in prompt)
    n_bytes = sum(len(item.encode()) for item in prompt if isinstance(item, str))
    n_least = n_ids + -(-n_bytes // info.longest_piece)
    if n_least > info.n_ctx:
        raise too_long(n_least, info)


def too_long(n_least: int, info: ModelInfo) -> ContextExceeded:
    """For a prompt of at least so many tokens."""
    return ContextExceeded(
        f"request (at least {n_least} tokens) exceeds the available context size ({info.n_ctx} tokens), "
        "try increasing it",
        n_prompt_tokens=n_least,
        n_ctx=info.n_ctx,
    )


def _one(value: Any, info: ModelInfo, field: str) -> Prompt:
    if isinstance(value, str):
        prompt: Prompt = [value]
    elif isinstance(value, dict):
        prompt = [_from_object(value, field)]
    elif isinstance(value, list):
        if not value:
            raise wrong(field, '"prompt" must not be empty')
        prompt = value
    else:
        raise wrong(
            field, f"must be a string, an array of token ids or a list of prompts, not {numbers.describe(value)}"
        )
    check_fits(prompt, info)  # first: it bounds the loop below
    for item in prompt:
        if not isinstance(item, str):
            check_tokens(field, item, info.n_vocab)
    return prompt


def _from_object(value: dict[str, Any], field: str) -> str:
    if value.get("multimodal_data"):
        raise wrong(field, "multimodal_data needs a projector, which this server does not support")
    text = value.get("prompt_string")
    if text is None:
        raise wrong(field, 'an object must have "prompt_string"')
    return numbers.string(field, text)
