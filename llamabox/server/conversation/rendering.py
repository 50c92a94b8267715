"""A body's messages through the model's template."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.types import Scope

from llamabox.chat.media_parts import MEDIA_PARTS
from llamabox.chat.messages import Conversation
from llamabox.chat.rendering.continuation import with_thought_apart
from llamabox.chat.rendering.reading import READERS, WITHOUT_PREFILL, read_chat
from llamabox.chat.template import HasMedia, RenderedChat, TooLong
from llamabox.server.conversation.template_wishes import default_wishes, template_wishes
from llamabox.server.fields.prompt import too_long
from llamabox.server.hosted.exchange import BYTES_A_VALUE, Exchange, read_json
from llamabox.server.hosted.text import HostedText
from llamabox.server.http.record import record_of
from llamabox.server.http.request_body import Lease
from llamabox.server.http.threads import off_loop

LARGE = 64 << 10
"""Bytes of a body. A smaller one is read and rendered in a millisecond or two."""

MEDIA = re.compile(rb'"type"\s*:\s*"(?:%b)"' % "|".join(sorted(MEDIA_PARTS)).encode())
"""A part of a message with a picture or sound: most of such a body is base64, which is read in no time."""


T = TypeVar("T")

Wishes = Callable[[dict[str, Any], str], dict[str, Any]]
"""Variables for a template, of a body and the template's text."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an API's bodies become prompts."""

    api: str  # of READERS
    wishes: Wishes

    async def read_fitting(self, hosted: HostedText, raw: bytearray, scope: Scope, lease: Lease) -> Exchange:
        """A body with messages. A large one is read where it is rendered, unless it is surely too long for that."""
        info = hosted.info
        try:
            return await self._read(hosted, raw, scope, lease, info.n_ctx * info.longest_piece)
        except TooLong as exc:
            raise too_long(-(-exc.n_bytes // info.longest_piece), info) from exc

    async def read_any(self, hosted: HostedText, raw: bytearray, scope: Scope, lease: Lease) -> Exchange:
        """A body with messages, which need not fit into the context."""
        return await self._read(hosted, raw, scope, lease, None)

    async def rendered(self, exchange: Exchange) -> RenderedChat:
        """The conversation and its prompt."""
        if exchange.chat is not None:
            return exchange.chat
        return await self._render(exchange.hosted, exchange.body, READERS[self._reader(exchange.hosted)](exchange.body))

    async def rendered_beside(self, exchange: Exchange, read: Callable[[], T]) -> tuple[T, RenderedChat]:
        """What `read` returns, and as `rendered`. It is called while the template's process renders.

        Raises what `read` raises, else as `rendered` does.
        """
        rendering = asyncio.create_task(self.rendered(exchange))
        try:
            await asyncio.sleep(0)  # the rendering goes up to its first pause
            return read(), await rendering
        finally:
            if not rendering.done():
                rendering.cancel()
                await asyncio.wait((rendering,))
            if not rendering.cancelled():
                rendering.exception()  # seen, even if another was raised first

    async def _read(
        self, hosted: HostedText, raw: bytearray, scope: Scope, lease: Lease, most_bytes: int | None
    ) -> Exchange:
        if len(raw) < LARGE:
            return await read_json(hosted, raw, scope, lease)
        if MEDIA.search(raw):
            return await self._read_media_chat(hosted, raw, scope, lease)
        info = hosted.info
        source = hosted.templates.source(info)
        defaults = default_wishes(hosted.config.chat, source)

        def wishes(body: dict[str, Any]) -> dict[str, Any]:
            return defaults | self.wishes(body, source)

        try:
            body, chat = await hosted.templates.read(
                info, raw, api=self._reader(hosted), wishes=wishes, most_bytes=most_bytes
            )
        except HasMedia:  # the type's name was written with escapes
            return await self._read_media_chat(hosted, raw, scope, lease)
        return Exchange(hosted, info, body, record_of(scope), scope, lease, chat)

    async def _read_media_chat(self, hosted: HostedText, raw: bytearray, scope: Scope, lease: Lease) -> Exchange:
        """A large body with media, read in this process: a child would have to send the media back."""
        info = hosted.info
        body, conversation = await off_loop(len(raw) // BYTES_A_VALUE, read_chat, raw, self._reader(hosted))
        chat = await self._render(hosted, body, conversation)
        return Exchange(hosted, info, body, record_of(scope), scope, lease, chat)

    def _reader(self, hosted: HostedText) -> str:
        """Which of READERS reads the bodies."""
        return self.api if hosted.config.chat.prefills else WITHOUT_PREFILL.get(self.api, self.api)

    async def _render(self, hosted: HostedText, body: dict[str, Any], conversation: Conversation) -> RenderedChat:
        return await render(hosted, body, conversation, self.wishes)


OPENAI = Dialect("openai", template_wishes)


async def render(
    hosted: HostedText, body: dict[str, Any], conversation: Conversation, wishes: Wishes = template_wishes
) -> RenderedChat:
    """The body's `chat_template_kwargs` count more than its other fields' wishes for the template, and they more than
    the server's defaults."""
    info, source = hosted.info, hosted.templates.source(hosted.info)
    wanted = default_wishes(hosted.config.chat, source) | wishes(body, source)
    if conversation.continues:
        conversation = with_thought_apart(conversation, await hosted.templates.form(info))
    conversation = replace(conversation, template_kwargs=wanted | conversation.template_kwargs)
    return RenderedChat(conversation, await hosted.templates.render(info, conversation))
