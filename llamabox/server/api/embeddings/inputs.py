"""The forms of `input` (docs/api.md, Embeddings): a text, token ids, both mixed, an object, or a list of these."""

from __future__ import annotations

from typing import Any

from llamabox.chat.media_parts import MEDIA_PARTS
from llamabox.checks import describe, first_present, present, string, wrong
from llamabox.engine.request import PromptText
from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.server.fields.prompt import check_tokens, is_one, least_tokens
from llamabox.server.http.threads import n_values
from llamabox.wire.text_config import ModelInfo

NAMES = ("input", "content")
"""The first one present counts."""

MAX_INPUTS = 65_536

NO_MEDIA = "vectors are made of texts alone; this server makes none of pictures or sound"


def parse_inputs(body: dict[str, Any], info: ModelInfo) -> list[PromptText]:
    """All inputs, at least one. Raises InvalidRequest or ContextExceeded, which name the field and the input."""
    name = first_present(body, NAMES)
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
    """The number of values that `parse_inputs` will look at."""
    return max(n_values(body.get(name)) for name in NAMES)


def _parse(field: str, value: Any) -> PromptText:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _from_object(field, value)
    if isinstance(value, list):
        if not value:
            raise wrong(field, "must not be an empty array")
        return value
    raise wrong(field, f"must be a string, an array of token ids or an object, not {describe(value)}")


def _check(field: str, index: int, prompt: PromptText, info: ModelInfo) -> None:
    """Check one input as far as can be without tokenising it; its size first, which bounds the rest."""
    n_least = least_tokens(prompt, info)
    if n_least > info.n_ctx:
        raise ContextExceeded(
            f"Field 'input': input {index} is too large to process: "
            f"it has at least {n_least} tokens, and at most {info.n_ctx} fit",
            n_prompt_tokens=n_least,
            n_ctx=info.n_ctx,
        )
    check_tokens(field, prompt, info.n_vocab)


def _from_object(field: str, value: dict[str, Any]) -> PromptText:
    """`{"prompt_string": text}`, or `{"content": [parts]}` with parts of type text."""
    value = present(value)
    if value.get("multimodal_data"):
        raise wrong(f"{field}.multimodal_data", NO_MEDIA)
    if "prompt_string" in value:
        return [string(f"{field}.prompt_string", value["prompt_string"])]
    parts = value.get("content")
    if not isinstance(parts, list):
        raise wrong(field, 'an object must have "prompt_string", a string, or "content", an array of parts')
    return ["".join(_part(f"{field}.content[{i}]", part) for i, part in enumerate(parts))]


def _part(field: str, part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in MEDIA_PARTS:
        raise wrong(field, NO_MEDIA)
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise wrong(field, 'each part must be {"type": "text", "text": a string}')
    return str(part["text"])
