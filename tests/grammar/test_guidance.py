"""A JSON schema as llguidance's grammar says what the schema says, and nothing that a request slipped in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamabox.errors import InvalidRequest
from llamabox.grammar.guidance import OPTIONS, schema_grammar


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"b": {}, "a": {"const": 'x"}\\u00e9'}}, "required": ["b"]},
        {"enum": [1, 0.5, None, "é", [], {}]},
    ],
)
def test_the_schema_is_in_it_in_its_own_order(schema: dict[str, Any]) -> None:
    [grammar] = json.loads(schema_grammar(f" {json.dumps(schema)}\n"))["grammars"]
    found = grammar["json_schema"]
    assert found.pop("x-guidance") == OPTIONS
    assert json.dumps(found) == json.dumps(schema)


def test_an_empty_schema_stands_for_any_object() -> None:
    [grammar] = json.loads(schema_grammar("{ }"))["grammars"]
    assert grammar["json_schema"] == {"type": "object", "x-guidance": OPTIONS}


def test_options_of_llguidance_are_ours_alone() -> None:
    with pytest.raises(InvalidRequest, match="not for requests"):
        schema_grammar('{"x-guidance":{"lenient":true}}')
    [grammar] = json.loads(schema_grammar('{"x\\u002dguidance":{"lenient":true}}'))["grammars"]
    assert grammar["json_schema"] == {"x-guidance": OPTIONS}


@pytest.mark.parametrize("schema", ['{"const":"\ud800"}', '{"const":NaN}', '{"not":' * 400 + "{}" + "}" * 400])
def test_what_is_no_json_to_llguidance_is_refused(schema: str) -> None:
    with pytest.raises(InvalidRequest):
        schema_grammar(schema)
