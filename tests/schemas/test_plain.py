"""What is plain is told from what could take a compiler long."""

from __future__ import annotations

from typing import Any

import pytest

from llamabox.schemas.plain import MAX_CHARACTERS, MAX_LEVELS, MAX_PROPERTIES, MAX_VALUES, n_parts

TEXT = {"type": "string"}


def nested(n: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": nested(n - 1)}} if n else TEXT


def named(n: int, length: int = 3) -> dict[str, Any]:
    return {"type": "object", "properties": {f"{i:0{length}}": TEXT for i in range(n)}}


@pytest.mark.parametrize(
    ("schema", "n"),
    [
        ({}, 1),
        (True, 1),
        ({"type": "object", "title": "T", "description": "x" * 5000, "default": {"a": [1]}}, 1),
        ({"type": ["string", "null"]}, 1),
        ({"enum": ["a", 1, None]}, 4),
        ({"const": "a"}, 2),
        ({"type": "array", "items": TEXT}, 2),
        ({"type": "object", "properties": {"a": TEXT, "b": {"enum": [1]}}, "required": ["b", "c"]}, 7),
        ({"type": "object", "additionalProperties": TEXT}, 2),
        (nested(MAX_LEVELS - 1), 2 * MAX_LEVELS - 1),
        (named(MAX_PROPERTIES, MAX_CHARACTERS), 1 + 2 * MAX_PROPERTIES),
        ({"enum": list(range(MAX_VALUES))}, 1 + MAX_VALUES),
    ],
)
def test_parts_are_counted(schema: Any, n: int) -> None:
    assert n_parts(schema) == n


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [TEXT]},
        {"type": "string", "pattern": "a"},
        {"type": "string", "maxLength": 4},
        {"type": "integer", "minimum": 4},
        {"type": "array", "items": TEXT, "minItems": 4},
        {"type": ["object", "null"]},
        {"type": []},
        {"type": {}},
        {"enum": [{}]},
        {"enum": [0.5]},
        {"enum": "ab"},
        {"const": "ü"},
        {"const": "a\n"},
        {"const": 10**20},
        {"required": [1]},
        {"required": "a"},
        {"properties": []},
        {"items": [TEXT]},
        nested(MAX_LEVELS),
        named(MAX_PROPERTIES + 1),
        named(1, MAX_CHARACTERS + 1),
        {"enum": list(range(MAX_VALUES + 1))},
        {"type": "array", "items": {"$defs": {}}},
        {"additionalProperties": {"not": {}}},
        "a",
    ],
)
def test_anything_else_is_not_plain(schema: Any) -> None:
    assert n_parts(schema) is None
