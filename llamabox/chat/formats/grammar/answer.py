"""One grammar for a whole answer: a thought, text, calls, or a value that fits a schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from llamabox.chat.formats.form import ID, INDEX, Calls, Channels, Format, JsonCalls, PythonCalls, TaggedCalls
from llamabox.chat.formats.grammar.calls import arguments_rule, call_rule, tagged_close, tool_rule
from llamabox.chat.formats.grammar.tool import Tool
from llamabox.chat.formats.grammar.words import Inner, Rules, one_of, quoted

MAX_BEFORE = 8
"""Thoughts, and words to the user, before the last message of an answer in channels."""

MAX_PLAIN_PARTS = 200
MAX_ALL_PLAIN_PARTS = 4000
"""Schemas, names and values of one tool, and of all, whose grammar is compiled without a trial: in 0.4 s at most."""

BLANKS = r"/[ \n\t]{1,16}/"


class Thinking(Enum):
    """What a thought may be."""

    NONE = 0  # the prompt has ended it, or the model has none
    MAY_BEGIN = 1
    BEGUN = 2  # the prompt ends within it


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an answer must be."""

    tools: tuple[Tool, ...]  # those that may be called
    must_call: bool = False
    parallel: bool = True  # several calls
    thinking: Thinking = Thinking.NONE
    final: str | None = None  # the words for what is not a call; None: any text


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """A grammar in Lark, and those of custom tools that it refers to.

    `opening`: an answer begins with any text, which leaves the grammar as it is until it has this in it, with which a
    call begins. Empty: a control token begins the call. None: an answer begins in another way.

    `is_plain`: there is so little in it, and of such simple kinds, that it is compiled in part of a second.
    """

    text: str
    inner: tuple[Inner, ...] = ()
    opening: str | None = None
    is_plain: bool = False


@dataclass(frozen=True, slots=True)
class _Body:
    """The words for what comes behind a thought. `opening`: see AnswerGrammar, of an answer without a thought."""

    words: str
    opening: str | None = None


def answer_grammar(form: Format, demand: Demand, tokens: Mapping[str, int]) -> AnswerGrammar:
    """The grammar. `tokens` are the ids of the control tokens that stand in the form, by their texts."""
    rules = Rules(tokens)
    start = _Body(_channels(rules, form, form.channels, demand)) if form.channels else _answer(rules, form, demand)
    text = f"%llguidance {{}}\nstart: {start.words}\n{rules}"
    return AnswerGrammar(text, rules.inner, start.opening, _is_plain(demand))


def _is_plain(demand: Demand) -> bool:
    n_parts = [tool.n_plain_parts for tool in demand.tools]
    n_known = [n for n in n_parts if n is not None and n <= MAX_PLAIN_PARTS]
    return demand.final is None and len(n_known) == len(n_parts) and sum(n_known) <= MAX_ALL_PLAIN_PARTS


def _answer(rules: Rules, form: Format, demand: Demand) -> _Body:
    thought = form.thought
    if thought is None or demand.thinking is Thinking.NONE:
        return _body(rules, form, demand)
    body = _body(rules, form, demand).words
    close = rules.up_to("thought", thought.close.strip())
    blanks = rules.add("BLANKS", BLANKS)
    if demand.thinking is Thinking.BEGUN:
        choices = [f"{close} {blanks}? {body}"]
        trigger = _trigger(form.calls) if form.calls is not None and demand.tools else ""
        if form.calls is not None and trigger and not rules.begins_with_token(trigger):
            cut_short = rules.up_to("thought_to_call", trigger)
            rest = _section_rest(rules, form.calls, demand)
            choices.append(f"{cut_short} {rest}" + ("" if demand.must_call else f" {body}"))
        return _Body(one_of(choices))
    return _Body(f"({rules.text(thought.open.strip())} {close} {blanks}?)? {body}")


def _body(rules: Rules, form: Format, demand: Demand) -> _Body:
    final = demand.final
    if final is not None and not final.startswith("@"):  # a grammar by name says itself with what a text may begin
        final = f"{rules.add('BLANKS', BLANKS)}? {final}"
    if not demand.tools or form.calls is None:
        return _Body(final or rules.add("text", f"({_any(rules, form)})*"))
    section = _section(rules, form, form.calls, demand)
    if demand.must_call:
        return _Body(section)
    if final is not None:
        return _Body(one_of([section, final]))
    return _text_and_calls(rules, form, form.calls, demand)


def _any(rules: Rules, form: Format) -> str:
    """Text, and the control tokens around it that say nothing."""
    around = [rules.text(one) for one in form.skipped if rules.begins_with_token(one)]
    return " | ".join([rules.any_text(), *around])


def _text_and_calls(rules: Rules, form: Format, calls: Calls, demand: Demand) -> _Body:
    """Text, in which calls may come. Once a call has its opening, it must be one."""
    trigger = _trigger(calls)
    rest = _section_rest(rules, calls, demand)
    if not trigger:  # a call is the whole answer
        return _Body(one_of([rest, rules.add("text", rules.any_text() + "?")]))
    if rules.begins_with_token(trigger):
        section = rules.add("section", f"{rules.text(trigger)} {rest}")
        text = rules.add("text", f"({_any(rules, form)})*")
        return _Body(f"{text} ({section} {text})*" if demand.parallel else f"{text} {section}?", opening="")
    head = rules.add("head", f"TEXT {quoted(trigger)}", "[lazy]")
    rules.add("TEXT", r"/(.|\n)*/")
    section = rules.add("section", f"{head} {rest}")
    around = [rules.text(one) for one in form.skipped if rules.begins_with_token(one)]
    before = f"({' | '.join(around)})* " if around else ""
    words = f"{before}{section}* TEXT" if demand.parallel else f"{before}({section} | TEXT)"
    return _Body(words, None if before else trigger)  # what stands `before` may not come behind a text


def _trigger(calls: Calls) -> str:
    """What no text but a call's beginning has."""
    opening = calls.section_open or calls.open
    for place in (ID, INDEX):
        opening = opening.partition(place)[0]
    is_list = isinstance(calls, PythonCalls) or (isinstance(calls, JsonCalls) and calls.is_array)
    stripped = opening.strip()
    if is_list and stripped and stripped[-1] not in ">]|":
        return opening.lstrip() + "["
    return stripped


def _section(rules: Rules, form: Format, calls: Calls, demand: Demand) -> str:
    """One or more calls, with all that stands around them."""
    trigger = _trigger(calls)
    one = " ".join(filter(None, (rules.text(trigger), _section_rest(rules, calls, demand))))
    around = [rules.text(each) for each in form.skipped if rules.begins_with_token(each)]
    before = f"({' | '.join(around)})* " if around else ""
    section = rules.add("whole_section", one)
    has_several = (calls.repeats or not calls.section_open) and trigger and not _is_list(calls)
    if demand.parallel and has_several:
        return f"{before}{section} ({rules.text(calls.separator)} {section})*".replace("( ", "(")
    return before + section


def _is_list(calls: Calls) -> bool:
    return isinstance(calls, PythonCalls) or (isinstance(calls, JsonCalls) and calls.is_array)


def _section_rest(rules: Rules, calls: Calls, demand: Demand) -> str:
    """What follows the trigger: the rest of the opening, the calls, what closes them."""
    call = call_rule(rules, calls, list(demand.tools))
    trigger = _trigger(calls)
    close = tagged_close(calls) if isinstance(calls, TaggedCalls) else calls.close
    if _is_list(calls):
        blanks = rules.add("BLANKS", BLANKS)
        bracket = "" if trigger.endswith("[") and not trigger.endswith("][") and _has_bracket(calls) else '"["'
        more = f'("," {blanks}? {call})*' if demand.parallel else ""
        words = [bracket, f"{blanks}?", call, more, f"{blanks}?", '"]"', rules.text(calls.section_close)]
        return rules.add("rest", " ".join(filter(None, words)))
    opening = _without_places(calls.open)
    one = " ".join(filter(None, (rules.text(opening), call, rules.text(close))))
    if not calls.section_open:
        words = [rules.text(opening.lstrip().removeprefix(trigger)), call, rules.text(close + calls.section_close)]
        return rules.add("rest", " ".join(filter(None, words)))
    more = ""
    if demand.parallel and not calls.repeats:
        more = f"({' '.join(filter(None, (rules.text(calls.separator), one)))})*"
    before = rules.text(calls.section_open.lstrip().removeprefix(trigger))
    return rules.add("rest", " ".join(filter(None, (before, one, more, rules.text(calls.section_close)))))


def _has_bracket(calls: Calls) -> bool:
    """Whether the trigger has the list's bracket in it."""
    return calls.section_open.strip()[-1:] not in (">", "]", "|")


def _without_places(text: str) -> str:
    for place in (ID, INDEX):
        text = text.partition(place)[0]
    return text


def _channels(rules: Rules, form: Format, channels: Channels, demand: Demand) -> str:
    """Messages, of which the last one is the text, or a call."""
    text = f"{rules.any_text()}?"
    close = rules.text(channels.header_close)
    end = rules.text(channels.ends[0])
    again = rules.text(channels.start)

    def message(name: str) -> str:
        channel = rules.text(channels.channel)
        header = f"{channel} {quoted(name)}" if channel else quoted(channels.recipient + name)
        return f"{header} {close} {text}"

    before = [message(channels.thought[0] if channels.channel else channels.thought[1])]
    if channels.channel:
        before.append(message("commentary"))
    calls = [_channel_call(rules, form, channels, i, tool, close) for i, tool in enumerate(demand.tools)]
    last = [message("final" if channels.channel else "user")] if not demand.must_call else []
    if demand.final is not None and last:
        last = [last[0].removesuffix(text) + demand.final]
    rules.add("before", f"{one_of(before)} {end} {again}")
    return f"before{{0,{MAX_BEFORE}}} {one_of([*calls, *last])}"


def _channel_call(rules: Rules, form: Format, channels: Channels, i: int, tool: Tool, close: str) -> str:
    recipient = quoted(channels.recipient + channels.function + tool.name)
    if isinstance(form.calls, TaggedCalls):
        before = rules.text(form.calls.section_open + form.calls.open)
        behind = rules.text(tagged_close(form.calls) + form.calls.section_close)
        return rules.add(f"told_{i}", f"{recipient} {close} {before} {tool_rule(rules, form.calls, i, tool)} {behind}")
    headers = [recipient]
    if channels.channel:
        constrain = rules.token("<|constrain|>")
        kind = f'(" " {constrain})? "json"' if constrain else '" json"'
        channel = rules.text(channels.channel)
        headers = [f'{recipient} {channel} "commentary json"', f'{channel} "commentary" {recipient} {kind}']
    return rules.add(f"told_{i}", f"{one_of(headers)} {close} {arguments_rule(rules, tool)}")
