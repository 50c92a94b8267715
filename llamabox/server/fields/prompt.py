"""The forms of `prompt` (docs/api.md, Prompts): a text, token ids, both mixed, or a list of several such prompts."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.checks import wrong
from llamabox.engine.request import PromptText
from llamabox.errors import ContextExceeded
from llamabox.wire.text_config import ModelInfo

MAX_PROMPTS = 1024


def parse_prompts(body: dict[str, Any], info: ModelInfo, field: str = "prompt") -> tuple[list[PromptText], bool]:
    """All prompts of the body, and whether they came as a list of several (so that the reply is one too)."""
    if field not in body:
        raise wrong(field, "is required")
    value = body[field]
    if not isinstance(value, list):
        return [_one(value, info, field)], False
    if not value:
        raise wrong(field, '"prompt" must not be empty')
    if is_one(value):
        return [_one(value, info, field)], False
    if len(value) > MAX_PROMPTS:
        raise wrong(field, f"must hold at most {MAX_PROMPTS} prompts, not {len(value)}")
    return [_one(item, info, field) for item in value], True


def is_one(value: list[Any]) -> bool:
    """Whether a list is one prompt: numbers, or numbers and texts. Texts alone are a prompt each."""
    kinds = {type(item) for item in value}
    return bool(kinds) and kinds <= {str, int, float, bool} and kinds != {str}


def check_token(field: str, value: Any, n_vocab: int) -> None:
    """InvalidRequest for anything but a token id of the vocabulary."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(field, f"a token id must be an integer, not {checks.describe(value)}")
    if not 0 <= value < n_vocab:
        raise wrong(field, f"token {checks.describe(value)} is not in the vocabulary; ids go from 0 to {n_vocab - 1}")


def check_tokens(field: str, prompt: PromptText, n_vocab: int) -> None:
    """InvalidRequest for an item of the prompt that is neither a text nor a token id of the vocabulary."""
    for item in prompt:
        if not isinstance(item, str):
            check_token(field, item, n_vocab)


def least_tokens(prompt: PromptText, info: ModelInfo) -> int:
    """A lower bound of the prompt's tokens: none stands for more bytes than the longest of the vocabulary.

    Costs little, so that a prompt that cannot fit is refused before time is spent on tokenising it.
    """
    n_ids = sum(not isinstance(item, str) for item in prompt)
    n_bytes = sum(len(item.encode("utf-8", "replace")) for item in prompt if isinstance(item, str))
    return n_ids + -(-n_bytes // info.longest_piece)


def check_fits(prompt: PromptText, info: ModelInfo) -> None:
    """ContextExceeded for a prompt that cannot fit however it is tokenised."""
    n_least = least_tokens(prompt, info)
    if n_least > info.n_ctx:
        raise too_long(n_least, info)


def too_long(n_least: int, info: ModelInfo) -> ContextExceeded:
    """The error for a prompt of at least `n_least` tokens."""
    return ContextExceeded(
        f"request (at least {n_least} tokens) exceeds the available context size ({info.n_ctx} tokens), "
        "try increasing it",
        n_prompt_tokens=n_least,
        n_ctx=info.n_ctx,
    )


def _one(value: Any, info: ModelInfo, field: str) -> PromptText:
    if isinstance(value, str):
        prompt: PromptText = [value]
    elif isinstance(value, dict):
        text = prompt_string(field, value)
        if text is None:
            raise wrong(field, 'an object must have "prompt_string"')
        prompt = [text]
    elif isinstance(value, list):
        if not value:
            raise wrong(field, '"prompt" must not be empty')
        prompt = value
    else:
        raise wrong(
            field, f"must be a string, an array of token ids or a list of prompts, not {checks.describe(value)}"
        )
    check_fits(prompt, info)  # first: it bounds the loop of check_tokens
    check_tokens(field, prompt, info.n_vocab)
    return prompt


def prompt_string(field: str, value: dict[str, Any]) -> str | None:
    """The text of a prompt that is an object; None where it has none. InvalidRequest for pictures and the like."""
    if value.get("multimodal_data"):
        raise wrong(field, "multimodal_data needs a projector, which this server does not support")
    text = value.get("prompt_string")
    return None if text is None else checks.string(field, text)
