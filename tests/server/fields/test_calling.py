"""Which arguments a tool's schema lets a call have."""

from __future__ import annotations

from typing import Any

import pytest

from llamabox.chat.messages import parse_messages
from llamabox.errors import InvalidRequest
from llamabox.server.conversation.calling import parse_calling

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def parameters(schema: Any) -> Any:
    function = {"name": "f"} if schema is None else {"name": "f", "parameters": schema}
    body = {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": function}]}
    calling = parse_calling(body, parse_messages(body))
    assert calling is not None
    [tool] = calling.tools
    return tool.parameters


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": None}])
def test_without_properties_there_are_no_arguments(schema: Any) -> None:
    found = parameters(schema)
    assert (found["properties"], found["additionalProperties"]) == ({}, False)


def test_other_arguments_are_taken_where_the_schema_says_so() -> None:
    assert parameters(CITY)["additionalProperties"] is False
    assert parameters({**CITY, "additionalProperties": True})["additionalProperties"] is True


def test_a_required_argument_without_a_schema_may_be_anything() -> None:
    found = parameters({**CITY, "required": ["city", "day"]})
    assert (list(found["properties"]), found["properties"]["day"]) == (["city", "day"], {})
    assert parameters({"properties": {"day": None}, "required": ["day"]})["properties"] == {"day": {}}


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "any"}, "type"),
        ({"type": ["string", "STRING"]}, "type"),
        ({"type": "array", "items": {"type": "None"}}, "items.type"),
        ({"type": "object", "properties": []}, "properties"),
        ({"properties": {"a": {"required": True}}}, "properties.a.required"),
        ({"anyOf": [{"type": "string"}, {"enum": "a"}]}, "anyOf[1].enum"),
        ({"type": "integer", "minimum": "0"}, "minimum"),
        ({"type": "string", "maxLength": -1}, "maxLength"),
        ("string", ""),
        ({"additionalProperties": {"type": 5}}, "additionalProperties.type"),
    ],
)
def test_a_schema_is_refused_by_the_place_of_what_is_wrong(schema: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parameters({"type": "object", "properties": {"city": schema}})
    assert refused.value.field == f"tools[0].function.parameters.properties.city.{field}".rstrip(".")


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/A", "$defs": {"A": CITY}}, {"anyOf": [CITY]}, {"allOf": [CITY]}])
def test_arguments_that_are_named_elsewhere_are_not_shut_out(schema: Any) -> None:
    assert "additionalProperties" not in parameters(schema)
