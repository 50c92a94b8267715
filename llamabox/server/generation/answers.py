"""How a request's answers are kept in their model's form, and taken apart."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llamabox.chat.answer import AnswerParser, opens_thought
from llamabox.chat.custom import InputFormat
from llamabox.chat.formats.form import Format
from llamabox.chat.formats.grammar.answer import AnswerGrammar, Demand, Thinking, answer_grammar
from llamabox.engine.request import InnerGrammar
from llamabox.marks import mark
from llamabox.server.hosted.answer_form import AnswerForm

ID_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """What a request's answers are to be, and how they are read. One for all its choices."""

    form: Format  # with marks in the place of control tokens
    marks: tuple[int, ...]  # the control tokens, in the order of their marks
    prompt: str  # its end, likewise with marks
    tools: tuple[dict[str, Any], ...] = ()
    inputs: Mapping[str, InputFormat] = field(default_factory=dict)  # of custom tools
    grammar: str = ""  # empty: nothing is enforced
    inner_grammars: tuple[InnerGrammar, ...] = ()  # those that it refers to

    def parser(self) -> AnswerParser:
        """A reader of one answer."""
        return AnswerParser(self.form, tools=self.tools, inputs=self.inputs, prompt=self.prompt, new_id=new_id)


def plan_answer(
    known: AnswerForm,
    prompt: str,
    *,
    tools: Sequence[dict[str, Any]] = (),
    inputs: Mapping[str, InputFormat] | None = None,
    demand: Demand | None = None,
    reads_thoughts: bool = True,
) -> AnswerPlan:
    """`inputs` are the formats of those of the `tools` that are custom.

    `demand` is without `thinking`, which the end of the prompt tells. None: nothing is enforced.
    """
    marks = {text: mark(i) for i, text in enumerate(known.tokens)}
    form = known.form if reads_thoughts else replace(known.form, thought=None)
    tail = prompt[-TAIL:]
    grammar = AnswerGrammar("")
    inputs = inputs or {}
    if demand is not None:
        grammar = answer_grammar(form, replace(demand, thinking=thinking(form, tail)), known.tokens)
    for text, character in marks.items():
        tail = tail.replace(text, character)
    return AnswerPlan(
        form=form.with_marks(marks),
        marks=tuple(known.tokens.values()),
        prompt=tail,
        tools=tuple(tools),
        inputs=inputs,
        grammar=grammar.text,
        inner_grammars=tuple(
            InnerGrammar(
                name=inner.name, field="tools", tool=inner.tool, is_escaped=inner.is_escaped, **inputs[inner.tool]
            )
            for inner in grammar.inner
        ),
    )


TAIL = 256
"""Characters at the end of a prompt that tell whether it has opened a thought."""


def thinking(form: Format, prompt: str) -> Thinking:
    """What a thought may be behind a prompt."""
    if form.thought is None:
        return Thinking.NONE
    if opens_thought(form, prompt):
        return Thinking.BEGUN
    if prompt.rstrip().endswith(form.thought.close.strip()):
        return Thinking.NONE
    return Thinking.MAY_BEGIN if form.thought.open.strip() else Thinking.NONE


def may_think(form: Format, prompt: str) -> bool:
    """Whether a thought may come behind a prompt."""
    return form.channels is not None or thinking(form, prompt[-TAIL:]) is not Thinking.NONE


def new_id(index: int) -> str:
    """An id that no other call has: nine letters and digits, as the strictest templates want them."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(9))
