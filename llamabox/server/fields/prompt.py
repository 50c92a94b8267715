"""The forms of `prompt` (docs/api.md, Prompts): a text, token ids, both mixed, a text with media, or a list of such."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llamabox import checks
from llamabox.checks import wrong
from llamabox.errors import ContextExceeded
from llamabox.media.source import MediaSource
from llamabox.wire.text_config import ModelInfo

MAX_PROMPTS = 1024

MAX_TEXT = 4 << 20
"""Bytes of text to tokenise in one go: the worker's reader does it while streams run beside it."""

NO_PROJECTOR = "this server has no multimodal projector; start it with `--mmproj FILE`"

RawPrompt = list[str | int | MediaSource]
"""Texts, token ids and media that are still to be read, in order."""


def parse_prompts(body: dict[str, Any], info: ModelInfo, marker: str) -> tuple[list[RawPrompt], bool]:
    """All prompts of the body, and whether they came as a list of several (so that the reply is one too).

    `marker` is the text that stands for each medium of a prompt.
    """
    if "prompt" not in body:
        raise wrong("prompt", "is required")
    value = body["prompt"]
    if not isinstance(value, list):
        return [_one("prompt", value, info, marker)], False
    if not value:
        raise wrong("prompt", '"prompt" must not be empty')
    if is_one(value):
        return [_one("prompt", value, info, marker)], False
    if len(value) > MAX_PROMPTS:
        raise wrong("prompt", f"must hold at most {MAX_PROMPTS} prompts, not {len(value)}")
    return [_one(f"prompt[{i}]", item, info, marker) for i, item in enumerate(value)], True


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


def check_tokens(field: str, prompt: Sequence[object], n_vocab: int) -> None:
    """InvalidRequest for an item of the prompt that is neither a text, nor media, nor a token id of the vocabulary."""
    for item in prompt:
        if not isinstance(item, str | MediaSource):
            check_token(field, item, n_vocab)


def check_media(prompt: Iterable[object], info: ModelInfo) -> None:
    """InvalidRequest for a picture or a recording that the model cannot take. It names the part of the request."""
    media = info.media
    for source in prompt:
        if not isinstance(source, MediaSource):
            continue
        if media is None:
            raise wrong(source.field, f"{source.kind or 'media'} input is not supported: {NO_PROJECTOR}")
        if source.kind == "image" and not media.has_vision:
            raise wrong(source.field, "image input is not supported: the server's projector takes sound alone")
        if source.kind == "audio" and not media.has_audio:
            raise wrong(source.field, "audio input is not supported: the server's projector takes pictures alone")


def least_tokens(prompt: Sequence[object], info: ModelInfo) -> int:
    """A lower bound of the prompt's tokens: none stands for more bytes than the longest of the vocabulary.

    Costs little, so that a prompt that cannot fit is refused before time is spent on tokenising it.
    """
    n_ids = sum(not isinstance(item, str) for item in prompt)
    n_bytes = sum(checks.n_bytes(item) for item in prompt if isinstance(item, str))
    return n_ids + -(-n_bytes // info.longest_piece)


def check_fits(prompt: Sequence[object], info: ModelInfo) -> None:
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


def _one(field: str, value: Any, info: ModelInfo, marker: str) -> RawPrompt:
    if isinstance(value, str):
        prompt: RawPrompt = [value]
    elif isinstance(value, dict):
        found = prompt_object(field, value, marker)
        if found is None:
            raise wrong(field, 'an object must have "prompt_string"')
        prompt = found
    elif isinstance(value, list):
        if not value:
            raise wrong(field, '"prompt" must not be empty')
        prompt = value
    else:
        raise wrong(
            field, f"must be a string, an array of token ids or a list of prompts, not {checks.describe(value)}"
        )
    check_fits(prompt, info)  # first: it bounds the loops of the others
    check_tokens(field, prompt, info.n_vocab)
    check_media(prompt, info)
    return prompt


def prompt_object(field: str, value: dict[str, Any], marker: str) -> RawPrompt | None:
    """A prompt that is an object: its `prompt_string`, with `multimodal_data` where the markers stand.

    None where it has no text. InvalidRequest where there are not as many markers as media.
    """
    value = checks.present(value)
    if "prompt_string" not in value:
        return None
    text = checks.string(f"{field}.prompt_string", value["prompt_string"])
    data = value.get("multimodal_data")
    if data is None or (data == [] and marker not in text):
        return [text]
    if not isinstance(data, list):
        raise wrong(f"{field}.multimodal_data", f"must be an array of base64 texts, not {checks.describe(data)}")
    pieces = text.split(marker)
    if len(pieces) - 1 != len(data):
        raise wrong(
            field,
            f"prompt_string has {len(pieces) - 1} media markers for the {len(data)} entries of multimodal_data; "
            "the marker is media_marker of GET /props",
        )
    prompt: RawPrompt = [pieces[0]]
    for i, one in enumerate(data):
        where = f"{field}.multimodal_data[{i}]"
        prompt += [MediaSource(kind=None, data=checks.string(where, one), field=where), pieces[i + 1]]
    return [piece for piece in prompt if piece != ""]
