"""How a request's answers are kept in their model's form, and taken apart."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from llamabox.chat.answer import AnswerParser, opens_thought
from llamabox.chat.custom import InputFormat
from llamabox.chat.formats.form import Format, Thought
from llamabox.chat.formats.grammar.answer import AnswerGrammar, Demand, Thinking, answer_grammar
from llamabox.engine.request import InnerGrammar, ThoughtBudget
from llamabox.marks import mark
from llamabox.server.generation.thinking import LEGACY, USUAL, ThinkingWish
from llamabox.server.hosted.answer_form import AnswerForm

N_WRITTEN = 16
"""Grammars that are kept as texts: some 300 KB each for a hundred tools."""

ID_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """What a request's answers are to be, and how they are read. One for all its choices."""

    form: Format  # with marks in the place of control tokens
    marks: tuple[int, ...]  # the control tokens, in the order of their marks
    prompt: str  # its end, likewise with marks
    in_thought: bool  # the prompt ends within a thought
    may_quote: bool  # see AnswerParser
    tools: tuple[dict[str, Any], ...] = ()
    inputs: Mapping[str, InputFormat] = field(default_factory=dict)  # of custom tools
    grammar: str = ""  # empty: nothing is enforced
    inner_grammars: tuple[InnerGrammar, ...] = ()  # those that it refers to
    opening: str | None = None  # of a call, where the grammar lets any text come first (AnswerGrammar)
    is_plain: bool = False  # the grammar is
    budget: ThoughtBudget | None = None
    inline: Thought | None = None  # where a whole reply has thoughts in its text as well: what stands around them

    def parser(self) -> AnswerParser:
        """A reader of one answer."""
        return AnswerParser(
            self.form,
            tools=self.tools,
            inputs=self.inputs,
            prompt=self.prompt,
            in_thought=self.in_thought,
            may_quote=self.may_quote,
            new_id=new_id,
        )


def plan_answer(
    known: AnswerForm,
    prompt: str,
    start: bool | None = None,
    *,
    tools: Sequence[dict[str, Any]] = (),
    inputs: Mapping[str, InputFormat] | None = None,
    demand: Demand | None = None,
    thinking: ThinkingWish = USUAL,
    streams: bool = False,
) -> AnswerPlan:
    """`start`: whether the answer's start that was given ends within a thought; None: the end of the prompt tells.

    `inputs` are the formats of those of the `tools` that are custom. `demand` is without `thinking`, which prompt and
    `start` tell. None: nothing is enforced.
    """
    marks = {text: mark(i) for i, text in enumerate(known.tokens)}
    tail = prompt[-TAIL:]
    may_be = thinking_behind(known.form, tail, start)
    grammar = AnswerGrammar("")
    inputs = inputs or {}
    if demand is not None:
        demand = replace(demand, thinking=may_be)
        grammar = written_grammar(known.form, demand, tuple(known.tokens.items()))
    for text, character in marks.items():
        tail = tail.replace(text, character)
    marked = known.form.with_marks(marks)
    return AnswerPlan(
        form=marked if thinking.is_apart(streams=streams) else replace(marked, thought=None),
        marks=tuple(known.tokens.values()),
        prompt=tail,
        in_thought=may_be is Thinking.BEGUN,
        may_quote=demand is None or not (demand.must_call or demand.final),
        tools=tuple(tools),
        inputs=inputs,
        grammar=grammar.text,
        inner_grammars=tuple(
            InnerGrammar(name=inner.name, tool=inner.tool, is_escaped=inner.is_escaped, **inputs[inner.tool])
            for inner in grammar.inner
        ),
        opening=grammar.opening,
        is_plain=grammar.is_plain,
        budget=_budget(known.form, marked, tail, may_be, thinking, has_tools=bool(tools)),
        inline=known.form.thought if thinking.format == LEGACY and not streams else None,
    )


def _budget(
    form: Format, marked: Format, tail: str, may_be: Thinking, thinking: ThinkingWish, *, has_tools: bool
) -> ThoughtBudget | None:
    """The limit of thoughts for the engine. `marked` is the form with marks, and so is the prompt's `tail`."""
    opens, closes, close = marked.thought_edges(with_calls=has_tools)
    if thinking.n_tokens < 0 or not closes:
        return None
    is_begun = may_be is Thinking.BEGUN or (marked.channels is not None and tail.rstrip().endswith(opens))
    _, _, close = form.thought_edges(with_calls=False)
    return ThoughtBudget(
        n_tokens=thinking.n_tokens,
        opens=opens,
        closes=closes,
        is_begun=is_begun,
        message=thinking.message,
        close=close,
    )


@lru_cache(N_WRITTEN)
def written_grammar(form: Format, demand: Demand, tokens: tuple[tuple[str, int], ...]) -> AnswerGrammar:
    """The grammar of a whole answer. Clients send the same tools with each turn."""
    return answer_grammar(form, demand, dict(tokens))


TAIL = 256
"""Characters at the end of a prompt that tell whether it has opened a thought."""


def thinking_behind(form: Format, prompt: str, start: bool | None) -> Thinking:
    """What a thought may be behind a prompt, and behind the start of an answer, if one was given."""
    if form.thought is None:
        return Thinking.NONE
    if start is not None:
        return Thinking.BEGUN if start else Thinking.NONE
    if opens_thought(form, prompt):
        return Thinking.BEGUN
    if prompt.rstrip().endswith(form.thought.close.strip()):
        return Thinking.NONE
    return Thinking.MAY_BEGIN if form.thought.open.strip() else Thinking.NONE


def may_think(form: Format, prompt: str, start: bool | None = None) -> bool:
    """Whether a thought may come behind a prompt."""
    return form.channels is not None or thinking_behind(form, prompt[-TAIL:], start) is not Thinking.NONE


def new_id(index: int) -> str:
    """An id that no other call has: nine letters and digits, as the strictest templates want them."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(9))
