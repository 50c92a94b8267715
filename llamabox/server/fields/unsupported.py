"""Fields that clients know and this build cannot honour (docs/api.md, Refused features)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llamabox.checks import describe, wrong

Neutral = Callable[[Any], bool]


def only(*values: Any) -> Neutral:
    """Nothing but one of the values, of the same type: true is not 1."""
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def is_empty(value: Any) -> bool:
    """An empty value, or false."""
    return value in ("", [], {}) or value is False


def never(value: Any) -> bool:
    """No value asks for nothing."""
    return False


GENERATION: dict[str, Neutral] = {
    "grammar_lazy": only(False),
    "grammar_triggers": is_empty,
    "preserved_tokens": is_empty,
    "backend_sampling": only(False),
}
"""Refused on every route that generates. An API has a table of its own for more."""


LEAVE_OUT = "leave it out"


def refuse(body: dict[str, Any], *tables: dict[str, Neutral], instead: Mapping[str, str] | None = None) -> None:
    """Raises InvalidRequest for the first field of the tables that asks for something.

    `instead` says what to do where there is something better than to leave a field out.
    """
    for table in tables:
        for field, is_neutral in table.items():
            if field in body and not is_neutral(body[field]):
                what = (instead or {}).get(field, LEAVE_OUT)
                raise wrong(field, f"{describe(body[field])} is not supported by this server; {what}")
