"""The forms of `input` (docs/api.md, Embeddings): a text, token ids, both mixed, an object, or a list of these."""

from __future__ import annotations

from typing import Any

from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.server.fields import numbers
from llamabox.server.fields.numbers import describe
from llamabox.server.fields.prompt import Prompt, check_tokens
from llamabox.server.http.beside import n_values
from llamabox.wire.text_config import ModelInfo

NAMES = ("input", "content")
"""The first one present counts."""

MAX_INPUTS = 65_536


def parse_inputs(body: dict[str, Any], info: ModelInfo) -> list[Prompt]:
    """All inputs, at least one. Raises InvalidRequest or ContextExceeded, which name the field and the input."""
    name = next((name for name in NAMES if name in body), None)
    if name is None:
        raise InvalidRequest('"input" must be provided', field="input")
    value = body[name]
    if isinstance(value, list) and not is_one(value):
        if len(value) > MAX_INPUTS:
            raise wrong(name, f"must have at most {MAX_INPUTS} inputs, not {len(value)}")
        inputs = [_parse(f"{name}[{i}]", one) for i, one in enumerate(value)]
    else:
        inputs = [_parse(name, value)]
    if not inputs:
        raise wrong(name, "must not be an empty array")
    for i, one in enumerate(inputs):
        _check(f"{name}[{i}]" if len(inputs) > 1 else name, i, one, info)
    return inputs


def n_inputs(body: dict[str, Any]) -> int:
    """How much there is for `parse_inputs` to look at."""
    return max(n_values(body.get(name)) for name in NAMES)


def is_one(value: list[Any]) -> bool:
    """Whether a list is one input: numbers, or numbers and texts. Texts alone are an input each."""
    kinds = {type(item) for item in value}
    return bool(kinds) and kinds <= {str, int, float, bool} and kinds != {str}


def wrong(field: str, what: str) -> InvalidRequest:
    """`field` may name an input in it, as input[3]."""
    return numbers.wrong(field, what)


def _parse(field: str, value: Any) -> Prompt:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [_from_object(field, value)]
    if isinstance(value, list):
        if not value:
            raise wrong(field, "must not be an empty array")
        return value
    raise wrong(field, f"must be a string, an array of token ids or an object, not {describe(value)}")


def _check(field: str, index: int, prompt: Prompt, info: ModelInfo) -> None:
    """What can be told before anybody tokenises; the size first, for it bounds the rest."""
    n_ids = sum(not isinstance(item, str) for item in prompt)
    n_bytes = sum(len(item.encode("utf-8", "replace")) for item in prompt if isinstance(item, str))
    n_least = n_ids + -(-n_bytes // info.longest_piece)
    if n_least > info.n_ctx:
        raise ContextExceeded(
            f"Field 'input': input {index} is too large to process: "
            f"it has at least {n_least} tokens, and at most {info.n_ctx} fit",
            n_prompt_tokens=n_least,
            n_ctx=info.n_ctx,
        )
    for item in prompt:
        if not isinstance(item, str):
            check_tokens(field, item, info.n_vocab)


def _from_object(field: str, value: dict[str, Any]) -> str:
    """`{"prompt_string": text}`, or `{"content": [parts]}` with parts of type text."""
    if value.get("multimodal_data"):
        raise wrong(field, "multimodal_data needs a projector, which this server does not support")
    if isinstance(value.get("prompt_string"), str):
        return str(value["prompt_string"])
    parts = value.get("content")
    if not isinstance(parts, list):
        raise wrong(field, 'an object must have "prompt_string", a string, or "content", an array of parts')
    return "".join(_part(field, part) for part in parts)


def _part(field: str, part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise wrong(field, 'each part of "content" must be {"type": "text", "text": a string}')
    return str(part["text"])
