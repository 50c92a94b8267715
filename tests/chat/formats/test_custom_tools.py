"""Custom tools: whatever the form, what is written of a tool's own grammar is what the tool is given."""

from __future__ import annotations

import json
import re

import pytest

from llamabox.chat.custom import InputFormat, input_schema
from llamabox.chat.formats.grammar.answer import Demand
from llamabox.chat.formats.grammar.tool import Tool
from llamabox.chat.formats.values.input_text import InputText
from tests.chat.formats.reading import read, tool
from tests.chat.formats.test_answer_grammar import FORMS, vocabulary, written
from tests.chat.formats.test_failures import HARMONY

LINES = re.compile(r'(?:[+-][^\n]{0,9}\n){1,3}end "x\\y"', re.DOTALL)
GRAMMARS: dict[str, InputFormat] = {
    "lark": {
        "syntax": "lark",
        "definition": 'start: line ~ 1..3 "end \\"x\\\\y\\""\nline: ("+" | "-") /[^\\n]{0,9}/ "\\n"',
    },
    "regex": {"syntax": "regex", "definition": r'([+-][^\n]{0,9}\n){1,3}end "x\\y"'},
}


@pytest.mark.parametrize("syntax", GRAMMARS)
@pytest.mark.parametrize("name", FORMS)
def test_inputs_fit_their_grammar(name: str, syntax: str) -> None:
    form, inputs = FORMS[name], {"patch": GRAMMARS[syntax]}
    words = vocabulary(form)
    demand = Demand(tools=(Tool("patch", input_schema(), has_grammar=True),), must_call=True, parallel=False)
    for seed in range(4):
        text = written(form, words, demand, seed, inputs)
        prompt = "<|start|>assistant" if form is HARMONY else ""
        for pieces in ([text], list(text)):
            found = read(form, pieces, tools=[tool("patch")], inputs=inputs, prompt=prompt)
            [(_, called, told)] = found.calls
            assert called == "patch"
            assert LINES.fullmatch(told), text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"input": "a\\nb \\"c\\" \\\\ \\u00e9 \\ud83d\\ude00 é"}', 'a\nb "c" \\ é \U0001f600 é'),
        ('{ "input" :"x"}', "x"),
        ('{"input": ""}', ""),
        ("{}", ""),
        ('{"inp', ""),
        ('{"input": "cut \\', "cut "),
        ('{"input": "\\ud83d x"}', "? x"),
        ('{"other": 1}', '{"other": 1}'),
        ('{"input": {"a": 1}}', '{"input": {"a": 1}}'),
        ("as it is", "as it is"),
    ],
)
def test_the_input_within_arguments(arguments: str, told: str) -> None:
    for i in range(len(arguments) + 1):
        reader = InputText()
        assert "".join([reader.push(arguments[:i]), reader.push(arguments[i:]), reader.end()]) == told
    reader = InputText()
    assert "".join([*map(reader.push, arguments), reader.end()]) == told
    if told and arguments.startswith('{"input": "') and arguments.endswith('"}') and "?" not in told:
        assert json.loads(arguments)["input"] == told
