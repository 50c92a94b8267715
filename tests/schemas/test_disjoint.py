"""Schemas that are called disjoint have no value in common."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llamabox.schemas.disjoint import MAX_COMPARED, are_disjoint

SCHEMAS: list[Any] = [
    *(True, False, {}, {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": ["null", "boolean"]}),
    *({"const": "a"}, {"const": 1}, {"const": 1.0}, {"const": True}, {"enum": ["a", "b", 1]}, {"enum": [None, 2]}),
    {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
    {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
    {"type": "object", "properties": {"kind": {"const": "b"}}},
    {"type": "object", "properties": {"kind": {"enum": ["a", "c"]}}, "required": ["kind"]},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array", "items": {"type": "integer"}},
    *({"const": [1, {"a": 2}]}, {"const": [1.0, {"a": 2.0}]}),
]

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, 1.5, 2, "", "a", "b", [], ["a"], [1], {}),
    *({"kind": "a"}, {"kind": "b"}, {"kind": "c"}, {"kind": 1}, {"other": 1}, [1, {"a": 2}]),
]


def itself(schema: Any) -> Any:
    return schema


def common(first: Any, second: Any) -> list[Any]:
    valid = [Draft202012Validator(schema).is_valid for schema in (first, second)]
    return [value for value in VALUES if valid[0](value) and valid[1](value)]


def test_what_is_called_disjoint_is() -> None:
    called = [pair for pair in combinations(SCHEMAS, 2) if are_disjoint(list(pair), itself)]
    assert len(called) > len(SCHEMAS), "hardly any pair is told apart"
    assert [(pair, found) for pair in called if (found := common(*pair))] == []


@pytest.mark.parametrize(
    "alternatives",
    [
        [{"type": "string"}, {"type": "integer"}, {"type": "null"}],
        [{"const": "a"}, {"const": "b"}],
        [SCHEMAS[13], SCHEMAS[14]],
    ],
    ids=["types", "constants", "a property that tells"],
)
def test_what_is_plainly_disjoint_is_called_so(alternatives: list[Any]) -> None:
    assert are_disjoint(alternatives, itself)
    assert not are_disjoint([*alternatives, alternatives[0]], itself)
    assert not are_disjoint([*alternatives, {}], itself)


def test_more_alternatives_than_are_compared() -> None:
    assert are_disjoint([{"const": i} for i in range(MAX_COMPARED)], itself)
    assert not are_disjoint([{"const": i} for i in range(MAX_COMPARED + 1)], itself)
