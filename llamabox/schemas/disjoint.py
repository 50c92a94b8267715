"""Finds out that no value can fit two schemas: then `oneOf` says what `anyOf` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

MAX_COMPARED = 50
"""Alternatives; each is compared with each."""

MAX_DEPTH = 8
MAX_LOOKS = 10_000

TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})

Resolve = Callable[[Any], Any]
"""The schema that a schema refers to, or itself."""


def are_disjoint(alternatives: list[Any], resolve: Resolve) -> bool:
    """Whether no value fits two of the schemas, as far as types, constants or a property show it."""
    if len(alternatives) > MAX_COMPARED:
        return False
    compare = _Comparison(resolve)
    return all(compare.apart(first, second, 0) for first, second in combinations(alternatives, 2))


class _Comparison:
    """Compares schemas, and gives up after a number of them."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._n_left = MAX_LOOKS

    def apart(self, first: Any, second: Any, depth: int) -> bool:
        """Whether it is plain that no value fits both schemas."""
        first, second = self._resolve(first), self._resolve(second)
        if first is False or second is False:
            return True
        self._n_left -= 1
        if not isinstance(first, dict) or not isinstance(second, dict) or depth > MAX_DEPTH or self._n_left < 0:
            return False
        types = self._types(first, depth), self._types(second, depth)
        if not types[0] & types[1]:
            return True
        values = _values(first), _values(second)
        if values[0] is not None and values[1] is not None and not values[0] & values[1]:
            return True
        return types[0] == types[1] == {"object"} and any(
            self.apart(properties(first)[name], properties(second)[name], depth + 1)
            for name in {*strings(first.get("required"))} & {*strings(second.get("required"))}
            if name in properties(first) and name in properties(second)
        )

    def _types(self, schema: Any, depth: int) -> frozenset[str]:
        """The types of values that it may allow; whole numbers count as numbers."""
        schema = self._resolve(schema)
        self._n_left -= 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self._n_left < 0:
            return TYPES
        found = TYPES
        named = schema.get("type")
        if isinstance(named, str | list):
            names = strings([named] if isinstance(named, str) else named)
            found &= {"number" if name == "integer" else name for name in names}
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            found &= {type_of(value) for value in values}
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                found &= frozenset().union(*(self._types(one, depth + 1) for one in schema[key]))
        return found


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema's listed properties by name."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def strings(value: Any) -> list[str]:
    """The strings of a list; none where the value is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _values(schema: dict[str, Any]) -> set[str] | None:
    """All values that it allows, as JSON; None where it does not list them."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return {json.dumps(_plain(value), sort_keys=True) for value in listed} if isinstance(listed, list) else None


def _plain(value: Any) -> Any:
    """The same value with whole numbers written as such: to JSON Schema 1.0 is 1."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {name: _plain(one) for name, one in value.items()}
    return value


def type_of(value: Any) -> str:
    """JSON's name of a value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
