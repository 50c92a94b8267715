"""Grammars that are compiled without a trial would pass it, however large they are, and harm nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llamabox.chat.formats.grammar.answer import MAX_ALL_PLAIN_PARTS, MAX_PLAIN_PARTS, Demand, answer_grammar
from llamabox.grammar.guidance import answer_grammar as in_guidance
from llamabox.schemas.plain import MAX_CHARACTERS, MAX_LEVELS, MAX_PROPERTIES, MAX_VALUES
from llamabox.server.conversation.calling import make_tools
from llamabox.workers.text.grammars.desk import GrammarTrial
from tests.chat.formats.test_answer_grammar import FORMS, vocabulary

Schema = dict[str, Any]


def long(i: int) -> str:
    return f"{i:0{MAX_CHARACTERS}}"


def a_flat_one(tool: int) -> Schema:
    """As many names as there may be, each of its tool's own, and none of them required."""
    names = [long(tool * 100 + i) for i in range(MAX_PROPERTIES)]
    return {"type": "object", "properties": {name: {"type": ["string", "integer", "null"]} for name in names}}


def one_that_is_given(tool: int) -> Schema:
    """All of it is given, as far as one tool may have that."""
    given = {long(i): {"const": long(tool * 100 + i)} for i in range(MAX_PROPERTIES)}
    return {"type": "object", "properties": given, "required": list(given)}


def lists_of_words(tool: int) -> Schema:
    words = [long(tool * 1000 + i) for i in range(MAX_VALUES)]
    return {"type": "object", "properties": {"a": {"enum": words}, "b": {"enum": words[::-1]}}}


def a_deep_one(tool: int, n_levels: int = MAX_LEVELS) -> Schema:
    """Objects and arrays within each other, to which anything may be added."""
    if n_levels == 1:
        return {"additionalProperties": True}
    inner = a_deep_one(tool, n_levels - 1)
    properties: Schema = {f"p{tool}_{n_levels}_{i}": inner for i in range(2)}
    if n_levels < MAX_LEVELS:
        return {"type": "object", "properties": properties, "additionalProperties": {"type": "boolean"}}
    names = {f"q{tool}_{i}": {"type": "array"} for i in range(MAX_PROPERTIES - 2)}
    return {"type": "object", "properties": properties | names, "additionalProperties": True}


SHAPES = (a_flat_one, one_that_is_given, lists_of_words, a_deep_one)


@pytest.fixture(scope="module")
def trial() -> Iterator[GrammarTrial]:
    made = GrammarTrial()
    yield made
    made.close()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["hermes", "qwen", "python", "gemma", "harmony"])
def test_the_largest_that_are_plain_pass_the_trial(trial: GrammarTrial, name: str, shape: Any) -> None:
    given = []
    n_all = 0
    while True:
        function = {"name": f"tool_{len(given)}", "parameters": shape(len(given))}
        [tool] = make_tools([("tools[0].function", function)])[0].values()
        assert tool.n_plain_parts is not None
        assert MAX_PLAIN_PARTS // 4 < tool.n_plain_parts <= MAX_PLAIN_PARTS
        if n_all + tool.n_plain_parts > MAX_ALL_PLAIN_PARTS:
            break
        n_all += tool.n_plain_parts
        given.append((f"tools[{len(given)}].function", function))
    tools = tuple(make_tools(given)[0].values())
    form = FORMS[name]
    answer = answer_grammar(form, Demand(tools=tools, must_call=True), vocabulary(form).ids)
    assert answer.is_plain
    assert trial.run(in_guidance(answer.text, {})) is None
    more = make_tools([*given, ("tools[0].function", {"name": "more", "parameters": shape(0)})])[0].values()
    assert not answer_grammar(form, Demand(tools=tuple(more)), vocabulary(form).ids).is_plain
