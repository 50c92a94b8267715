"""POST /v1/responses/compact: a conversation in fewer words, which goes on where the whole one would have."""

from __future__ import annotations

import time
from dataclasses import replace

from starlette.responses import Response

from llamabox.chat.parts import Text
from llamabox.checks import wrong
from llamabox.engine.events import FinishReason
from llamabox.errors import ServerFault
from llamabox.server.api.openai.responses.conversation import answer_room, read_input, rendered
from llamabox.server.api.openai.responses.fields import parse_fields
from llamabox.server.api.openai.responses.items import COMPACTION, Item
from llamabox.server.api.openai.responses.output import new_id
from llamabox.server.api.openai.responses.storage.stored import Responses, with_ids
from llamabox.server.api.openai.responses.thoughts import sealed
from llamabox.server.api.openai.responses.tools import parse_tools
from llamabox.server.api.openai.responses.writer import usage
from llamabox.server.conversation.planning import plan_chat
from llamabox.server.fields.grammar import header_warning
from llamabox.server.fields.unsupported import Neutral, only, refuse
from llamabox.server.generation.prompts import cut_prompt, read_media
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.timings import rate_header
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse

REFUSED: dict[str, Neutral] = {"stream": only(False), "background": only(False)}
"""A compaction is told whole, to somebody who waits for it."""

ASKED: Item = {
    "type": "message",
    "role": "user",
    "content": "Sum up our conversation so far, so that it can be gone on from without the rest of it. Say what was "
    "asked for, what was done and found out, what was decided, and what is left to do. Keep names, paths, numbers and "
    "code that matter as they are. Answer with the summary alone, and call no tools.",
}


async def compact_conversation(exchange: Exchange) -> Response:
    """The messages of the user's as they were, and behind them one item with the model's summary of everything.

    The summary is asked for at the end of the conversation as it is, tools included, so that it begins from what is
    resident of that. Raises ServerFault where the model says nothing.
    """
    hosted, body = exchange.hosted, exchange.body
    refuse(body, REFUSED)
    wanted = parse_fields(body, hosted.config, hosted.defaults, exchange.info)
    toolbox = parse_tools(body)
    responses = Responses(hosted.responses, exchange.record.asker)
    spoken = await read_input(exchange, responses, needs_input="previous_response_id" not in body)
    items = (*spoken.history, *spoken.given)
    if not items:
        raise wrong("input", "must not be empty: there is nothing to compact")
    params = replace(wanted.options.params, n_predict=answer_room(wanted, exchange.info.n_ctx))
    wanted = replace(wanted, may_truncate=True, options=replace(wanted.options, params=params))
    wanted, chat = await rendered(exchange, replace(spoken, given=(*spoken.given, ASKED)), toolbox, wanted)
    options, plan = await plan_chat(hosted, body, wanted.options, chat, None)
    prompts = await read_media(exchange, [cut_prompt(chat, exchange.info)])
    reply = TextReply(exchange, prompts, options, plan.parser if plan else None)
    [choice] = await reply.gather()
    summary = "".join(part.text for part in choice.parts if isinstance(part, Text)).strip()
    if not summary:
        raise ServerFault("the model said nothing where a summary was asked for; ask again, or for more tokens")
    if choice.finished.reason is not FinishReason.STOP:
        exchange.record.warnings.append(header_warning(f"the summary was cut off after {choice.n_predicted} tokens"))
    said = with_ids(item for item in items if item.get("role") == "user")
    compaction = {"id": new_id("cmp"), "type": COMPACTION, "encrypted_content": sealed(summary)}
    told = {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*said, compaction],
        **({"dropped_turns": wanted.n_dropped} if wanted.n_dropped else {}),
        "usage": usage(choice),
    }
    return JsonResponse(told, headers=rate_header(choice.finished.timings))
