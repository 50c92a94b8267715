"""A language model behind the port."""

from __future__ import annotations

import asyncio
import importlib
import secrets
from typing import Final

from llamabox.chat.formats.known import FORMS
from llamabox.media.desk import MediaDesk
from llamabox.media.reader import MediaReader
from llamabox.server.hosted.abilities import Ability
from llamabox.server.hosted.answer_form import AnswerForm, with_tokens
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.model import Hosted, not_loaded
from llamabox.server.hosted.seams import TextService
from llamabox.server.hosted.slot_book import SlotBook
from llamabox.server.hosted.templating import Templates
from llamabox.server.http.shelf import Shelf
from llamabox.server.metrics.text import TextMetrics
from llamabox.wire.text_config import ModelInfo

GENERATING = frozenset({Ability.GENERATE, Ability.INFILL})


class HostedText(Hosted):
    """A model that reads texts. What it does with them hangs on the model and on the options."""

    def __init__(self, config: ModelConfig, client: TextService, media: MediaDesk | None = None) -> None:
        """`media` reads pictures and sound; by default a reader within the bounds of `config`. Starts nothing."""
        super().__init__(config)
        self._client = client
        self._metrics = TextMetrics(client)
        form = FORMS[config.chat.form] if config.chat.form is not None else None
        self.templates: Final = Templates(config.chat_template, form)
        self.media: Final = media or media_reader(config)
        self.media_marker: Final = config.media_marker or f"<__media_{secrets.token_hex(16)}__>"
        self.slots: Final = SlotBook()
        self.responses: Final = Shelf[object](config.responses_store)
        self.background: Final = set[asyncio.Task[None]]()  # generations that no connection waits for
        self._answer_form: tuple[str, AnswerForm] | None = None  # by the template's text

    @property
    def client(self) -> TextService:
        return self._client

    @property
    def metrics(self) -> TextMetrics:
        return self._metrics

    @property
    def info(self) -> ModelInfo:
        if (info := self._client.info) is None:
            raise not_loaded()
        return info

    @property
    def abilities(self) -> frozenset[Ability]:
        info, config = self.info, self.config
        able = {
            Ability.LANGUAGE: True,
            Ability.TOKENS: True,
            Ability.GENERATE: info.generates,
            Ability.INFILL: info.generates and config.enable_infill,
            Ability.HEAR: info.media is not None and info.media.has_audio,
            Ability.EMBED: config.enable_embeddings,
            Ability.RERANK: config.enable_rerank,
            Ability.SHOW_SLOTS: config.enable_slots,
            Ability.KEEP_SLOTS: config.enable_slots and config.slot_save_path is not None,
            Ability.LORA: len(info.lora) > 0,
        }
        return frozenset(ability for ability, is_there in able.items() if is_there)

    @property
    def ruled_out(self) -> frozenset[Ability]:
        return frozenset() if self.info.generates else GENERATING

    async def answer_form(self) -> AnswerForm:
        """The form in which the model thinks and calls tools."""
        source = self.templates.source(self.info)
        if self._answer_form is None or self._answer_form[0] != source:
            form = await self.templates.form(self.info)
            self._answer_form = source, await with_tokens(form, self._client)
        return self._answer_form[1]

    def describe(self) -> str:
        return f"{self.info.path}, {self.info.n_slots} slots of {self.info.n_ctx} tokens"

    async def warm(self) -> None:
        await self.templates.warm(self.info)
        if self.info.media is not None:
            await self.media.warm()
        if self.config.enable_embeddings:
            await asyncio.to_thread(importlib.import_module, "numpy")  # the first vectors need not wait for it

    async def close(self) -> None:
        for task in self.background:
            task.cancel()
        await self.templates.close()
        await self.media.close()


def media_reader(config: ModelConfig) -> MediaReader:
    """A reader of media within the bounds that the user set. It starts nothing yet."""
    return MediaReader(folder=config.media_path, hosts=config.media_hosts, max_side=config.visual_max_image_size)
