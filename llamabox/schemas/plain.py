"""Schemas of such words alone, and so few of them, that compiling them takes a few milliseconds in any case."""

from __future__ import annotations

from typing import Any

from llamabox.schemas.relax import ANNOTATIONS

WORDS = ANNOTATIONS | {"type", "properties", "required", "additionalProperties", "items", "enum", "const"}
SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})

MAX_LEVELS = 5
MAX_PROPERTIES = 32
"""Of one object."""

MAX_VALUES = 64
MAX_CHARACTERS = 100
"""Of a name, and of a value that is listed."""


def n_parts(schema: Any, n_levels: int = MAX_LEVELS) -> int | None:
    """How many schemas, names and values are in it. None: it is not plain.

    Nothing in a plain schema refers to another part, has alternatives, or is to be matched by a pattern: what takes
    compilers long, or deep into their stacks, are those and large numbers.
    """
    if isinstance(schema, bool):
        return 1
    if not isinstance(schema, dict) or n_levels == 0 or not schema.keys() <= WORDS:
        return None
    kind, n_all = schema.get("type"), 1
    if not (kind is None or kind in ("object", "array") or _are_scalars(kind)):
        return None
    for key in ("enum", "const"):
        if key in schema:
            values = schema[key] if key == "enum" else [schema[key]]
            if not isinstance(values, list) or len(values) > MAX_VALUES or not all(map(_is_short, values)):
                return None
            n_all += len(values)
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        return None
    if not all(isinstance(name, str) for name in required):
        return None
    names = {*properties, *required}
    if len(names) > MAX_PROPERTIES or not all(map(_is_short, names)):
        return None
    n_all += len(names)
    parts = [*properties.values(), *(schema[key] for key in ("additionalProperties", "items") if key in schema)]
    for part in parts:
        if (n := n_parts(part, n_levels - 1)) is None:
            return None
        n_all += n
    return n_all


def _are_scalars(kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return bool(kinds) and all(isinstance(one, str) and one in SCALARS for one in kinds)


def _is_short(value: Any) -> bool:
    """Whether it is a word, a small whole number, true, false or null."""
    if isinstance(value, str):
        return len(value) <= MAX_CHARACTERS and value.isascii() and value.isprintable()
    return value is None or (isinstance(value, int) and abs(value) < 10**9)
