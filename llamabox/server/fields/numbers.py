"""One checker for each kind of value in a request's JSON. All raise InvalidRequest: `Field 'name': what is right`.

JSON's null means absent everywhere, so callers leave nulls out before they ask here.
"""

from __future__ import annotations

import math
from typing import Any

from llamabox.engine.request import HIGHEST_SEED, LOWEST_SEED, fold_seed
from llamabox.errors import InvalidRequest

INT32_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028234663852886e38


def wrong(field: str, what: str) -> InvalidRequest:
    """The error that names a field."""
    return InvalidRequest(f"Field '{field}': {what}", field=field)


def describe(value: Any) -> str:
    """A value as JSON has it, shortened, for error messages."""
    if value is True or value is False or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:40] + "…"


def integer(field: str, value: Any, low: int, high: int) -> int:
    """A whole number within [low, high]; 3.0 is one, 3.5 and true are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(field, f"must be an integer, not {describe(value)}")
    # An integer beyond 64 bits arrives as a float: it is whole, and the range refuses it.
    if not math.isfinite(value) or value != math.floor(value):
        raise wrong(field, f"must be an integer, not {describe(value)}")
    if not low <= value <= high:
        raise wrong(field, f"must be between {low} and {high}, not {describe(value)}")
    return int(value)


def seed(field: str, value: Any) -> int:
    """Any whole number of 64 bits, with a sign or without, folded into 32; RANDOM_SEED draws one."""
    return fold_seed(integer(field, value, LOWEST_SEED, HIGHEST_SEED))


def number(field: str, value: Any, low: float, high: float) -> float:
    """A finite number within [low, high]."""
    checked = _finite(field, value)
    if not low <= checked <= high:
        raise wrong(field, f"must be between {low:g} and {high:g}, not {describe(value)}")
    return checked


def clamped(field: str, value: Any, low: float, high: float) -> float:
    """A finite number; one outside [low, high] becomes the nearer bound."""
    return min(max(_finite(field, value), low), high)


def boolean(field: str, value: Any) -> bool:
    """true or false, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise wrong(field, f"must be true or false, not {describe(value)}")
    return value


def string(field: str, value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise wrong(field, f"must be a string, not {describe(value)}")
    return value


def strings(field: str, value: Any, *, max_count: int, max_length: int) -> list[str]:
    """An array of texts, bounded in count and in the characters of each."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(field, "must be an array of strings")
    if len(value) > max_count:
        raise wrong(field, f"must have at most {max_count} entries, not {len(value)}")
    if any(len(item) > max_length for item in value):
        raise wrong(field, f"no entry may be longer than {max_length} characters")
    return value


def _finite(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(field, f"must be a number, not {describe(value)}")
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:  # false for NaN too
        raise wrong(field, f"must be a finite 32-bit number, not {describe(value)}")
    return float(value)
