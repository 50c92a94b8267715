"""The chat template in force, made when the model is known and kept for its life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llamabox.chat.formats.form import Format
from llamabox.chat.messages import Conversation
from llamabox.chat.rendering.capabilities import Capabilities
from llamabox.chat.template import (
    N_LONG,
    N_QUICK,
    ChatTemplate,
    RenderedChat,
    Wishes,
    is_long,
    render_chat,
    resolve_template,
)
from llamabox.errors import InvalidRequest, OptionsError
from llamabox.wire.text_config import ModelInfo


class Templates:
    """Owns a ChatTemplate with its children, and the threads that wait for them. Belongs to the event loop.

    Threads of its own: those of `asyncio.to_thread` are few, and long conversations would hold them all.
    """

    def __init__(self, option: str | None, form: Format | None = None) -> None:
        """`option` is a built-in name or a text; None: the model's own. `form` is how the model writes, if known."""
        self._option = option
        self._form = form
        self._made: tuple[tuple[str, str, str, bool], ChatTemplate] | None = None
        self._quick = ThreadPoolExecutor(N_QUICK, thread_name_prefix="chat template")
        self._long = ThreadPoolExecutor(N_LONG, thread_name_prefix="chat template, long")

    def source(self, info: ModelInfo) -> str:
        """The template's text."""
        return resolve_template(self._option, info.chat_template)

    async def form(self, info: ModelInfo) -> Format:
        """The form in which the model thinks and calls."""
        return await asyncio.wrap_future(self._quick.submit(self._get(info).form))

    async def capabilities(self, info: ModelInfo) -> tuple[Capabilities, Capabilities] | None:
        """What the template can take, without tools and with some; None where it cannot be used."""
        return await asyncio.wrap_future(self._quick.submit(self._get(info).capabilities))

    async def warm(self, info: ModelInfo) -> None:
        """Start the template's process, so that the first chat need not wait for it. Never raises."""
        await asyncio.wrap_future(self._quick.submit(self._get(info).warm))

    async def render(self, info: ModelInfo, conversation: Conversation) -> str:
        """The prompt. InvalidRequest: the template refuses these messages; ServerFault: the template is at fault.

        Up to its first pause it has a short conversation on its way to a child that is ready.
        """
        template, takes_long = self._get(info), is_long(conversation.messages)
        with _usable():
            begun = None if takes_long else template.begin(conversation)
            if begun is not None:
                answer = await asyncio.shield(begun)  # the child answers, whether the client stays or not
                return template.finish(answer)
            threads = self._long if takes_long else self._quick
            return await asyncio.wrap_future(threads.submit(render_chat, template, conversation))

    async def read(
        self, info: ModelInfo, raw: bytearray, *, api: str, wishes: Wishes, most_bytes: int | None
    ) -> tuple[dict[str, Any], RenderedChat]:
        """Read and render a large chat from its body; see `ChatTemplate.read`."""
        with _usable():
            work = self._long.submit(self._get(info).read, raw, api=api, wishes=wishes, most_bytes=most_bytes)
            return await asyncio.wrap_future(work)

    async def close(self) -> None:
        """Ends the child processes. Idempotent."""
        for threads in (self._quick, self._long):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._made is not None:
            await asyncio.to_thread(self._made[1].close)

    def _get(self, info: ModelInfo) -> ChatTemplate:
        key = (self.source(info), info.bos_token, info.eos_token, info.add_bos)
        if self._made is None or self._made[0] != key:
            source, bos_token, eos_token, add_bos = key
            self._made = (key, ChatTemplate(source, bos_token, eos_token, add_bos=add_bos, form=self._form))
        return self._made[1]


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except OptionsError as exc:
        raise InvalidRequest(f"the model's chat template cannot be used: {exc.message}") from exc
