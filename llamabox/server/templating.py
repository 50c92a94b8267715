"""The chat template in force, made when the model is known and kept for its life."""

from __future__ import annotations

import asyncio

from llamabox.chat.messages import Conversation
from llamabox.chat.template import ChatTemplate, render_chat, resolve_template
from llamabox.errors import InvalidRequest, OptionsError
from llamabox.workers.text_config import ModelInfo


class Templates:
    """Owns a ChatTemplate and its child process. Belongs to the event loop; rendering blocks a thread, not the loop."""

    def __init__(self, option: str | None) -> None:
        """`option` is a built-in name or a text; None: the model's own."""
        self._option = option
        self._made: tuple[tuple[str, str, str, bool], ChatTemplate] | None = None

    def source(self, info: ModelInfo) -> str:
        """The template's text."""
        return resolve_template(self._option, info.chat_template)

    async def warm(self, info: ModelInfo) -> None:
        """So that the first chat does not pay for the start. Never raises."""
        await asyncio.to_thread(self._get(info).warm)

    async def render(self, info: ModelInfo, conversation: Conversation) -> str:
        """The prompt. InvalidRequest: the template refuses these messages; ServerFault: the template is at fault."""
        try:
            return await asyncio.to_thread(render_chat, self._get(info), conversation)
        except OptionsError as exc:
            raise InvalidRequest(f"the model's chat template cannot be used: {exc.message}") from exc

    async def close(self) -> None:
        """Ends the child process. Idempotent."""
        if self._made is not None:
            await asyncio.to_thread(self._made[1].close)

    def _get(self, info: ModelInfo) -> ChatTemplate:
        key = (self.source(info), info.bos_token, info.eos_token, info.add_bos)
        if self._made is None or self._made[0] != key:
            source, bos_token, eos_token, add_bos = key
            self._made = (key, ChatTemplate(source, bos_token, eos_token, add_bos=add_bos))
        return self._made[1]
