"""Tools as templates see them: nothing in them is null, however they are written."""

from __future__ import annotations

from typing import Any

import pytest

from llamabox.chat.rendering.adapt import adapt_tools


def tool(**properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}


def nested(n_levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(n_levels):
        schema = {"type": "array", "items": schema}
    return schema


PLAIN = {"a": {"type": "string", "description": "null and void", "default": 7}}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (PLAIN, PLAIN),
        ({"a": {"type": "string", "title": None}}, {"a": {"type": "string"}}),
        ({"a": {"default": None, "enum": [None, 1]}}, {"a": {"default": None, "enum": [None, 1]}}),
        ({"a": {"description": "\ud800", "title": None}}, {"a": {"description": "\ud800"}}),
        ({"a": nested(300)}, {"a": nested(300)}),
    ],
    ids=["no null", "a null", "values that are null", "half a surrogate", "deep"],
)
def test_keywords_that_are_null_are_left_out_and_values_stay(given: dict[str, Any], shown: dict[str, Any]) -> None:
    first, second = adapt_tools([tool(**given), tool()])
    assert first["function"]["parameters"]["properties"] == shown
    assert second["function"] == {
        "name": "f",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
