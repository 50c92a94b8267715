"""What a request says, together with what was said before, as a prompt that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamabox.chat.messages import Conversation, template_kwargs
from llamabox.chat.template import RenderedChat
from llamabox.checks import string, wrong
from llamabox.media.source import MediaSource
from llamabox.server.api.openai.responses.fields import Wanted
from llamabox.server.api.openai.responses.items import Item, Transcript
from llamabox.server.api.openai.responses.storage.stored import Responses
from llamabox.server.api.openai.responses.tools import Toolbox
from llamabox.server.conversation.rendering import render
from llamabox.server.conversation.template_wishes import reads_wish
from llamabox.server.fields.grammar import header_warning
from llamabox.server.fields.prompt import check_media
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.threads import n_values, off_loop
from llamabox.wire.questions import CountTokens

VALUES_AN_ITEM = 16
"""An item's fields and parts, as `off_loop` counts them."""

LEADING = ("system", "developer")
"""Roles of messages that stay at the beginning of a conversation that is made shorter."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The items of a conversation: those of earlier responses, and those of the request."""

    instructions: str
    history: tuple[Item, ...]
    given: tuple[Item, ...]

    def transcript(self, n_dropped: int = 0) -> Transcript:
        """The messages, without the oldest turns."""
        transcript = Transcript()
        if self.instructions:
            transcript.say("system", self.instructions)
        items = (*self.history, *self.given)
        begins = self.turns()
        first = begins[0] if begins else 0
        start = begins[n_dropped] if n_dropped else first
        n_before = len(self.history)
        for i in (*range(first), *range(start, len(items))):
            where = f"input[{i - n_before}]" if i >= n_before else "previous_response_id"
            transcript.add(items[i], where)
        return transcript

    def turns(self) -> Sequence[int]:
        """Where turns begin: at messages of the user's behind those of others."""
        roles = [item.get("role") for item in (*self.history, *self.given)]
        n_leading = next((i for i, role in enumerate(roles) if role not in LEADING), len(roles))
        later = [i for i in range(n_leading + 1, len(roles)) if roles[i] == "user" and roles[i - 1] != "user"]
        return [n_leading, *later]


async def read_input(exchange: Exchange, responses: Responses, *, needs_input: bool = True) -> Spoken:
    """`instructions`, `previous_response_id` and `input`. Raises InvalidRequest naming the field."""
    body = exchange.body
    instructions = string("instructions", body.get("instructions", ""))
    if "input" not in body and needs_input:
        raise wrong("input", "is required: a text, or an array of items")
    history: tuple[Item, ...] = ()
    if "previous_response_id" in body:
        previous = string("previous_response_id", body["previous_response_id"])
        history = responses.previous(previous).conversation
    transcript = Transcript(responses.item)
    given = body.get("input", [])
    await off_loop(n_values(given) * VALUES_AN_ITEM, transcript.read, given, "input")
    if not transcript.items and needs_input:
        raise wrong("input", "must not be empty")
    for kind in sorted(transcript.dropped):
        exchange.record.warnings.append(header_warning(f"items of type {kind} are not known here and were left out"))
    return Spoken(instructions, history, tuple(transcript.items))


async def rendered(exchange: Exchange, spoken: Spoken, toolbox: Toolbox, wanted: Wanted) -> tuple[Wanted, RenderedChat]:
    """The conversation and its prompt, and what is wanted as far as the template can do it.

    With `truncation` of `auto` the oldest turns are left out until the rest fits and leaves room for an answer.
    """
    wanted = replace(wanted, wishes=known_wishes(exchange, wanted.wishes))

    async def attempt(n_dropped: int) -> RenderedChat:
        n = len(spoken.history) + len(spoken.given)
        transcript = await off_loop(n * VALUES_AN_ITEM, spoken.transcript, n_dropped)
        if not transcript.messages:
            raise wrong("input", "has nothing that could be shown to the model")
        conversation = Conversation(
            messages=tuple(transcript.messages),
            tools=toolbox.shown,
            inputs=toolbox.inputs,
            template_kwargs=template_kwargs(exchange.body),
            media=tuple(transcript.markers.sources),
            marker=transcript.markers.random,
        )
        return await render(exchange.hosted, wanted.wishes, conversation)

    chat = await attempt(0)
    n_turns = len(spoken.turns())
    if not wanted.may_truncate or n_turns == 1:
        return wanted, chat
    room = exchange.info.n_ctx - answer_room(wanted, exchange.info.n_ctx)
    sizes = await media_sizes(exchange, chat.conversation.media)
    if await n_tokens(exchange, chat, sizes) <= room:
        return wanted, chat
    low, high = 1, n_turns - 1  # the fewest turns whose loss is enough
    while low < high:
        middle = (low + high) // 2
        if await n_tokens(exchange, await attempt(middle), sizes) <= room:
            high = middle
        else:
            low = middle + 1
    exchange.record.warnings.append(
        header_warning(f"the conversation was too long: its {low} oldest turns are left out")
    )
    return replace(wanted, n_dropped=low), await attempt(low)


def answer_room(wanted: Wanted, n_ctx: int) -> int:
    """Tokens of the context that a conversation that is made shorter leaves to its answer."""
    n_predict = wanted.options.params.n_predict
    return min(n_predict, n_ctx // 4) if n_predict > 0 else n_ctx // 4


async def media_sizes(exchange: Exchange, sources: Sequence[MediaSource]) -> dict[MediaSource, int]:
    """Tokens of each picture and sound. Raises InvalidRequest naming one that cannot be read, or not be taken."""
    if not sources:
        return {}
    check_media(sources, exchange.info)
    info, lease = exchange.info.media, exchange.lease
    assert info is not None, "check_media refuses media without a projector"
    n_before = lease.n_bytes
    media = await exchange.hosted.media.read(sources, info, lease)
    try:
        counts = [await exchange.hosted.client.ask(CountTokens([one])) for one in media]
    finally:
        lease.shrink(lease.n_bytes - n_before)  # those that stay are read once more, which is quick
    return {source: count.n_tokens for source, count in zip(sources, counts, strict=True)}


async def n_tokens(exchange: Exchange, chat: RenderedChat, sizes: Mapping[MediaSource, int]) -> int:
    """Tokens of the prompt, whose media have these sizes."""
    pieces = chat.cut()
    texts: list[Any] = [piece for piece in pieces if isinstance(piece, str)]
    n_media = sum(sizes[piece] for piece in pieces if isinstance(piece, MediaSource))
    return n_media + (await exchange.hosted.client.ask(CountTokens(texts))).n_tokens


def known_wishes(exchange: Exchange, wishes: dict[str, Any]) -> dict[str, Any]:
    """Those wishes that the model's template has variables for.

    Clients of this API send an effort whatever the model is, so one that cannot be fulfilled is told in a warning.
    """
    source = exchange.hosted.templates.source(exchange.info)
    known = {}
    for name, value in wishes.items():
        if reads_wish(name, source):
            known[name] = value
        else:
            told = f"the template of this model has no variable for {name}, so it changes nothing"
            exchange.record.warnings.append(header_warning(told))
    return known
