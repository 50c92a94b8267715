"""The forms of `input` (docs/api.md, Embeddings): a text, token ids, both mixed, an object, or a list of these.

Objects may have pictures and sound.
"""

from __future__ import annotations

from typing import Any

from llamabox.chat.media_parts import MEDIA_PARTS, parse_media
from llamabox.checks import describe, first_present, present, wrong
from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.media.source import MediaSource
from llamabox.server.fields.prompt import RawPrompt, check_media, check_tokens, is_one, least_tokens, prompt_object
from llamabox.server.http.threads import n_values
from llamabox.wire.text_config import ModelInfo

NAMES = ("input", "content")
"""The first one present counts."""

MAX_INPUTS = 65_536

RANK = "rank"

SCORES_TEXTS = "a reranker scores texts alone"

READS_BOTH_WAYS = (
    "this model's words see those behind them, which they cannot where pictures and words are computed one after the "
    "other; use a model whose words see those before them alone"
)


def parse_inputs(body: dict[str, Any], info: ModelInfo, marker: str) -> list[RawPrompt]:
    """All inputs, at least one. Raises InvalidRequest or ContextExceeded, which name the field and the input.

    `marker` is the text that stands for each medium in a `prompt_string`.
    """
    name = first_present(body, NAMES)
    if name is None:
        raise InvalidRequest('"input" must be provided', field="input")
    value = body[name]
    if isinstance(value, list) and not is_one(value):
        if len(value) > MAX_INPUTS:
            raise wrong(name, f"must have at most {MAX_INPUTS} inputs, not {len(value)}")
        inputs = [_parse(f"{name}[{i}]", one, marker) for i, one in enumerate(value)]
    else:
        inputs = [_parse(name, value, marker)]
    if not inputs:
        raise wrong(name, "must not be an empty array")
    for i, one in enumerate(inputs):
        _check(f"{name}[{i}]" if len(inputs) > 1 else name, i, one, info)
    return inputs


def n_inputs(body: dict[str, Any]) -> int:
    """The number of values that `parse_inputs` will look at."""
    return max(n_values(body.get(name)) for name in NAMES)


def check_vectors(prompt: RawPrompt, info: ModelInfo) -> None:
    """InvalidRequest for media of which no vector can be made. It names the part of the request, and says why."""
    check_media(prompt, info)
    if not info.embeds_media and (source := next((one for one in prompt if isinstance(one, MediaSource)), None)):
        why = SCORES_TEXTS if info.pooling == RANK else READS_BOTH_WAYS
        raise wrong(source.field, f"cannot be embedded: {why}")


def _parse(field: str, value: Any, marker: str) -> RawPrompt:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _from_object(field, value, marker)
    if isinstance(value, list):
        if not value:
            raise wrong(field, "must not be an empty array")
        return value
    raise wrong(field, f"must be a string, an array of token ids or an object, not {describe(value)}")


def _check(field: str, index: int, prompt: RawPrompt, info: ModelInfo) -> None:
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
    check_vectors(prompt, info)


def _from_object(field: str, value: dict[str, Any], marker: str) -> RawPrompt:
    """`{"prompt_string": text, "multimodal_data": […]}`, or `{"content": [parts]}` as in a message, put together."""
    if (found := prompt_object(field, value, marker)) is not None:
        return found
    parts = present(value).get("content")
    if not isinstance(parts, list):
        raise wrong(field, 'an object must have "prompt_string", a string, or "content", an array of parts')
    prompt: RawPrompt = []
    for i, part in enumerate(parts):
        piece = _part(f"{field}.content[{i}]", part)
        if isinstance(piece, str) and prompt and isinstance(before := prompt[-1], str):
            prompt[-1] = before + piece
        else:
            prompt.append(piece)
    return prompt or [""]


def _part(field: str, part: Any) -> str | MediaSource:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in MEDIA_PARTS:
        return parse_media(part, field)
    if kind != "text" or not isinstance(part.get("text"), str):
        raise wrong(
            field, 'each part must be {"type": "text", "text": a string}, or a picture or sound as messages have'
        )
    return str(part["text"])
