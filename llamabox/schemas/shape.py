"""Finds keywords of a JSON schema whose values are of the wrong kind, so that they are refused by name."""

from __future__ import annotations

from typing import Any

from llamabox.checks import INT32_MAX, MAX_SCHEMA_LEVELS, describe, integer, mapping, one_of, strings, wrong

TYPES = ("string", "number", "integer", "boolean", "null", "object", "array")
BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
NUMBERS = frozenset({"minimum", "maximum", "multipleOf"})
COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
MAX_NAMES, MAX_NAME = 10_000, 10_000
"""Required properties of one object, and characters of the name of one."""


def check_shape(field: str, schema: Any, n_levels: int = MAX_SCHEMA_LEVELS) -> None:
    """Raises InvalidRequest naming the keyword, which stands behind `field`. A keyword that is null is absent.

    What is nested deeper than `n_levels` is not looked at.
    """
    if isinstance(schema, bool) or n_levels == 0:
        return
    for key, value in mapping(field, schema).items():
        if value is not None:
            _check(f"{field}.{key}", key, value, n_levels - 1)


def _check(field: str, key: str, value: Any, n_levels: int) -> None:
    if key in BY_NAME:
        for name, one in mapping(field, value).items():
            if one is not None:
                check_shape(f"{field}.{name}", one, n_levels)
    elif key in LISTS or (key == "items" and isinstance(value, list)):
        for i, one in enumerate(_array(field, value)):
            check_shape(f"{field}[{i}]", one, n_levels)
    elif key in ("items", "additionalProperties"):
        check_shape(field, value, n_levels)
    elif key == "type":
        for one in value if isinstance(value, list) else [value]:
            one_of(field, one, TYPES)
    elif key == "required":
        strings(field, value, max_count=MAX_NAMES, max_length=MAX_NAME)
    elif key == "enum":
        _array(field, value)
    elif key in NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise wrong(field, f"must be a number, not {describe(value)}")
    elif key in COUNTS:
        integer(field, value, 0, INT32_MAX)


def _array(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(field, f"must be an array, not {describe(value)}")
    return value
