"""What a chat's answer is to be: calls of its tools, thoughts apart from text, a value that fits a schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from llamabox.chat.formats.grammar.answer import Demand
from llamabox.chat.formats.grammar.words import json_rule
from llamabox.chat.template import RenderedChat
from llamabox.checks import wrong
from llamabox.engine.request import GenerationParams, InnerGrammar
from llamabox.server.conversation.calling import Calling
from llamabox.server.conversation.template_wishes import can_switch
from llamabox.server.fields.grammar import FINAL, warning_of
from llamabox.server.fields.request import AnswerWords, Options
from llamabox.server.generation.answers import AnswerPlan, may_think, plan_answer
from llamabox.server.generation.thinking import LEGACY, parse_thinking
from llamabox.server.hosted.answer_form import AnswerForm
from llamabox.server.hosted.text import HostedText


async def plan_chat(
    hosted: HostedText, body: dict[str, Any], options: Options, chat: RenderedChat, calling: Calling | None
) -> tuple[Options, AnswerPlan | None]:
    """The options with what the answer's form asks of the worker; no plan where all of an answer is text.

    Raises InvalidRequest for tools beside a grammar of the body's own.
    """
    known = await hosted.answer_form()
    config = hosted.config.chat
    thinking = parse_thinking(body, config, known.form, can_switch=can_switch(hosted.templates.source(hosted.info)))
    in_content = options.stream and thinking.format == LEGACY
    words = AnswerWords(reasoning_format=thinking.format, reasoning_in_content=in_content)
    options = replace(options, answer=words)
    if config.skips_parsing:
        return _unparsed(options, calling), None
    with_thoughts = thinking.is_apart(streams=options.stream)
    knows_thoughts = known.form.thought is not None or known.form.channels is not None
    if calling is None and not (knows_thoughts and (with_thoughts or thinking.n_tokens >= 0)):
        return options, None
    if calling is not None and options.params.grammar not in ("", hosted.defaults.grammar):
        field = "grammar" if body.get("grammar") else "response_format"
        raise wrong(field, "a grammar cannot stand beside tools; leave out one")
    prompt, start = chat.prompt, chat.conversation.in_thought
    thinks = with_thoughts and may_think(known.form, prompt, start)
    if calling is None and thinks:
        options = replace(options, params=_behind_thoughts(options.params, known))
    demand = None
    if not options.params.grammar:  # one for the whole answer, beside tools the server's own
        demand = _demand(options, calling, thinks=thinks)
    tools = chat.conversation.tools or () if calling is not None else ()
    plan = plan_answer(
        known,
        prompt,
        start,
        tools=tools,
        inputs=chat.conversation.inputs,
        demand=demand,
        thinking=thinking,
        streams=options.stream,
    )
    options = replace(options, answer=replace(words, chat_format=known.form.name))
    tells_thoughts = plan.form.thought is not None or plan.form.channels is not None  # and counts their tokens
    params = replace(options.params, marks=plan.marks, thought=plan.budget, by_token=tells_thoughts)
    if plan.grammar:
        inner = (*params.inner_grammars, *plan.inner_grammars)
        params = replace(
            params,
            answer_grammar=plan.grammar,
            answer_opening=plan.opening,
            answer_is_plain=plan.is_plain,
            inner_grammars=inner,
            json_schema="",
        )
    notes = calling.notes if calling is not None else ()
    return replace(options, params=params, warning=warning_of(notes, options.warning)), plan


def _unparsed(options: Options, calling: Calling | None) -> Options:
    """Options of an answer that nobody takes apart. Raises InvalidRequest where a call is asked for."""
    if calling is not None and calling.must_call:
        raise wrong("tool_choice", "no call can be required: this server tells answers unparsed (--skip-chat-parsing)")
    return options


def _behind_thoughts(params: GenerationParams, known: AnswerForm) -> GenerationParams:
    """The params with a GBNF grammar, which holds from the first token on, as one for what follows a thought.

    Unless something stands in it that begins or ends a thought: then it is for the whole answer.
    """
    if not params.grammar or known.is_told_by(params.grammar):
        return params
    field = params.form_field or "grammar"  # else the command line's
    final = InnerGrammar(name=FINAL, field=field, syntax="gbnf", definition=params.grammar)
    return replace(params, grammar="", inner_grammars=(final,))


def _demand(options: Options, calling: Calling | None, *, thinks: bool) -> Demand | None:
    """What is to be enforced beyond the options' own grammar; None: nothing."""
    params = options.params
    final = json_rule(orjson.loads(params.json_schema), params.form_field) if params.json_schema else None
    if params.inner_grammars:
        final = f"@{params.inner_grammars[0].name}"
    if calling is None and not (final is not None and thinks):
        return None
    if calling is None:
        return Demand(tools=(), final=final)
    return Demand(tools=calling.tools, must_call=calling.must_call, parallel=calling.parallel, final=final)
