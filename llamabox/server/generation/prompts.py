"""From what a request says to the prompts that the worker gets: conversations are cut, media read and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from llamabox.chat.template import RenderedChat
from llamabox.engine.request import PromptText
from llamabox.media.source import MediaSource
from llamabox.server.fields.prompt import RawPrompt, check_fits, check_media
from llamabox.server.hosted.exchange import Exchange
from llamabox.wire.text_config import ModelInfo


def cut_prompt(chat: RenderedChat, info: ModelInfo) -> RawPrompt:
    """The prompt with its media. Raises InvalidRequest or ContextExceeded where it cannot be computed."""
    check_media(chat.conversation.media, info)
    prompt: RawPrompt = [*chat.cut()]
    check_fits(prompt, info)
    return prompt


async def read_media(exchange: Exchange, prompts: Sequence[RawPrompt]) -> list[PromptText]:
    """The prompts with pixels and samples in place of their sources, which the model must be able to take.

    The request's lease holds their bytes until its end, and its body, in which they were base64, is emptied: parse it
    before. Raises InvalidRequest, which names the part that cannot be read; Unavailable.
    """
    sources = [piece for prompt in prompts if has_media(prompt) for piece in prompt if isinstance(piece, MediaSource)]
    if not sources:
        return cast(list[PromptText], list(prompts))
    info, lease = exchange.info.media, exchange.lease
    assert info is not None, "check_media was not asked"
    n_before = lease.n_bytes
    media = iter(await exchange.hosted.media.read(sources, info, lease))
    lease.n_kept += lease.n_bytes - n_before
    exchange.body.clear()
    return [[next(media) if isinstance(piece, MediaSource) else piece for piece in prompt] for prompt in prompts]


def has_media(prompt: RawPrompt) -> bool:
    """Whether there is a medium in it. One stands first or behind a text: a million token ids need no look."""
    return any(isinstance(piece, MediaSource) for piece in prompt[:2])
