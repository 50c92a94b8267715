"""One generation request on its way: its prompts, the choices that come of them, and its two ways to be answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from starlette.responses import Response

from llamabox.chat.answer import AnswerParser
from llamabox.checks import wrong
from llamabox.engine.events import Delta, Finished, PrefillStart, Progress, PromptProbs, Started
from llamabox.engine.request import PromptText
from llamabox.errors import LlamaboxError
from llamabox.server.fields.request import Options
from llamabox.server.fields.token_rate import asked_rate
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.running import events_of, make_submits
from llamabox.server.generation.settings import settings_object
from llamabox.server.generation.timings import RATE_HEADER, rate_header
from llamabox.server.generation.writer import Writer
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.errors import error_event
from llamabox.server.http.sse import PING, EventStream

logger = logging.getLogger(__name__)

MANY_LIKELY = 2_000
MAX_LIKELY = 500_000
"""Log-probabilities in one plain reply, at about 250 bytes each while it is made."""


Made = TypeVar("Made")

TellPrompt = Callable[[Choice, PromptProbs], bytes]
"""Writes the next tokens of a prompt that a stream repeats."""


def audience(exchange: Exchange) -> str:
    """Whose finished texts may help this request, and whom its own may help: all who are called alike here."""
    return exchange.record.asker if exchange.hosted.config.spec_corpus == "key" else ""


def with_biases(options: Options, biases: tuple[tuple[int, float], ...]) -> Options:
    """`options` with the tokens that the worker made of a logit_bias' texts."""
    params = options.params
    return replace(options, params=replace(params, sampling=replace(params.sampling, logit_bias=biases)))


class TextReply:
    """Runs `prompts` with `options`. The choices stand in the reply's order: prompt * n + sequence."""

    def __init__(
        self,
        exchange: Exchange,
        prompts: list[PromptText],
        options: Options,
        new_parser: Callable[[], AnswerParser] | None = None,
    ) -> None:
        """`new_parser` makes a reader of one answer; None: all of an answer is text."""
        self._exchange = exchange
        self._options = options
        rate = asked_rate(exchange.scope, exchange.info.tokens_per_second)
        drafting = replace(options.params.drafting, audience=audience(exchange))
        options = replace(options, params=replace(options.params, tokens_per_second=rate, drafting=drafting))
        self._submits = make_submits(exchange.hosted, prompts, options)
        self.choices = [
            Choice(index, parser=new_parser() if new_parser else None)
            for index in range(len(prompts) * options.params.n)
        ]
        self._n_likely = 0  # log-probabilities that are kept for a plain reply
        self._settings: dict[str, Any] | None = None
        self._biases: tuple[tuple[int, float], ...] | None = None  # what the texts of a logit_bias became
        exchange.record.choices = self.choices
        exchange.record.n_sequences = options.params.n
        if options.warning:
            exchange.record.warnings.append(options.warning)
        if logger.isEnabledFor(logging.DEBUG):  # verbosity 2: no level below shows a request's text
            for prompt in prompts:
                logger.debug("%s prompt %r", exchange.record.request_id, prompt)

    @property
    def settings(self) -> dict[str, Any]:
        """What was really asked of the engine, for all choices; only once the first one has started."""
        if self._settings is None:
            self._settings = settings_object(self._options, self._exchange.info)
        return self._settings

    async def gather(self) -> list[Choice]:
        """All choices, with their whole texts."""
        async with aclosing(events_of(self._exchange.hosted.client, self._submits)) as batches:
            async for position, events in batches:
                for event in events:
                    match event:
                        case Delta():
                            choice = self._choice(position, event)
                            self._exchange.hosted.metrics.said(choice.timings, event.timings)
                            choice.add(event)
                            self._check_size(event)
                        case PromptProbs():
                            for choice in self._choices_of(position):
                                choice.prompt_probs += event.probs
                                self._check_size(event)
                        case Started():
                            self._start(position, event)
                        case Finished():
                            self._finish(position, event).close()
        return self.choices

    async def build(self, make: Callable[[], Made]) -> Made:
        """Call `make`, which writes a plain reply; on a thread where there is much to write.

        Hundreds of thousands of log-probabilities take a second, and the event loop would stand still.
        """
        if self._n_likely > MANY_LIKELY:
            return await asyncio.to_thread(make)
        return make()

    async def answer(
        self,
        writer: Writer,
        *,
        tell_prompt: TellPrompt | None = None,
        ping: Callable[[], bytes] = lambda: PING,
        failed: Callable[[LlamaboxError], bytes] = error_event,
    ) -> Response:
        """The reply in the writer's words: server-sent events, or whole, as the request asks.

        `tell_prompt` is needed where the request asks for its prompt's log-probabilities.
        `ping` and `failed` are what EventStream has of these names, where an API has words of its own for them.
        """
        if not self._options.stream:
            return await writer.whole(await self.gather())
        return self.stream(self.chunks(writer, tell_prompt), ping=ping, failed=failed)

    def stream(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        ping: Callable[[], bytes] = lambda: PING,
        failed: Callable[[LlamaboxError], bytes] = error_event,
        tells: type[LlamaboxError] | None = None,
    ) -> EventStream:
        """The reply as server-sent events: `chunks` of this reply, or what was made of them. The rest: EventStream."""
        return EventStream(
            chunks,
            ping_interval=self._options.ping_interval,
            ping=ping,
            failed=failed,
            tells=tells,
            trailer=RATE_HEADER,
            trailers=self._trailers,
        )

    def _trailers(self) -> dict[str, str]:
        """The rate header; after an error the rate up to there: Hypercorn breaks at trailers without any field."""
        return rate_header(self.choices[0].timings)

    async def chunks(self, writer: Writer, tell_prompt: TellPrompt | None = None) -> AsyncGenerator[bytes, None]:
        """The stream, a piece for each engine step. The piece is empty where a prompt begins to be computed."""
        async with aclosing(events_of(self._exchange.hosted.client, self._submits)) as batches:
            n_running, n, metrics = len(self.choices), self._options.params.n, self._exchange.hosted.metrics
            async for position, events in batches:
                written: list[bytes] = []
                is_silent = True
                for event in events:
                    match event:
                        case Delta():
                            choice = self.choices[position * n + event.index]
                            metrics.said(choice.timings, event.timings)
                            choice.timings = event.timings  # its text goes out at once, and is not kept
                            written.append(writer.parts(choice, choice.read(event), event))
                        case PrefillStart():
                            is_silent = False
                            written.append(writer.begun(self._choice(position, event), event))
                        case Progress():
                            written.append(writer.progress(self._choice(position, event), event))
                        case PromptProbs() if tell_prompt is not None:
                            written += [tell_prompt(choice, event) for choice in self._choices_of(position)]
                        case Started():
                            written.append(writer.started(self._start(position, event), event))
                        case Finished():
                            n_running -= 1
                            choice = self.choices[position * n + event.index]
                            if rest := choice.read_rest():
                                nothing = Delta(event.request_id, event.index, "", [], event.timings)
                                written.append(writer.parts(choice, rest, nothing))
                            written.append(writer.finished(self._finish(position, event), is_last=not n_running))
                if not n_running:
                    written.append(writer.closing())
                chunk = b"".join(written)
                if chunk or not is_silent:
                    yield chunk

    def _check_size(self, event: Delta | PromptProbs) -> None:
        """InvalidRequest: log-probabilities add up to gigabytes before the first byte of a plain reply goes out."""
        self._n_likely += sum(len(one.top) for one in event.probs or ())
        if self._n_likely > MAX_LIKELY:
            raise wrong("n_probs", f"over {MAX_LIKELY} log-probabilities came together; ask for fewer or stream them")

    def _choices_of(self, position: int) -> list[Choice]:
        """All choices that come of one prompt."""
        n = self._options.params.n
        return self.choices[position * n : (position + 1) * n]

    def _choice(self, position: int, event: PrefillStart | Progress | Started | Delta | Finished) -> Choice:
        return self.choices[position * self._options.params.n + event.index]

    def _start(self, position: int, event: Started) -> Choice:
        choice = self._choice(position, event)
        choice.start(event)
        if event.logit_bias is not None and self._biases is None:
            self._biases = event.logit_bias
            self._options = with_biases(self._options, event.logit_bias)
        if self._exchange.record.begin():
            self._exchange.hosted.metrics.began(self._exchange.record)
        self._exchange.hosted.slots.start(event, self._options)
        return choice

    def _finish(self, position: int, event: Finished) -> Choice:
        choice = self._choice(position, event)
        choice.finish(event)
        self._exchange.hosted.metrics.ended(event)
        self._exchange.hosted.slots.finish(event)
        return choice
