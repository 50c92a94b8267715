"""Finds the form of calls in two turns of the assistant's: one with a call, and one with that call and another."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from llamabox.chat.formats.detection.edges import TAG, common_end, common_start
from llamabox.chat.formats.detection.marks import ARGUMENTS, IDS, KEY, NAME, NUMBER, NUMBER_KEY, OTHER, VALUE
from llamabox.chat.formats.form import (
    GENERIC,
    ID,
    INDEX,
    TYPE,
    BracedCalls,
    Calls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)


def detect_calls(one: str, two: str) -> Calls | None:
    """The form of the calls in the texts of two turns, or None. Raises ValueError for what looks like no form."""
    if NAME not in one or NAME not in two or OTHER not in two:
        return None
    for find in (_json_calls, _python_calls, _braced_calls, _tagged_calls):
        if (form := find(one, two)) is not None:
            return form
    return None


def _json_calls(one: str, two: str) -> Calls | None:
    for start, stop, value in _values(one):
        if value == ARGUMENTS:
            return _named_calls(one, two, start)
        if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
            return GENERIC.calls
        keys = _keys(value[0] if isinstance(value, list) and value else value)
        if keys is None:
            continue
        form = JsonCalls(name_key=keys[0], arguments_key=keys[1], id_key=keys[2])
        if isinstance(value, list):
            before, behind = one[:start], one[stop:]
            return replace(form, section_open=before, section_close=behind, separator=", ", is_array=True)
        calls = [found for found in _values(two) if NAME in json.dumps(found[2]) or OTHER in json.dumps(found[2])]
        between, behind = two[calls[0][1] : calls[1][0]], two[calls[1][1] :]
        return replace(form, **_around(one[:start], between, behind))
    return None


def _values(text: str) -> list[tuple[int, int, Any]]:
    """The outermost objects and arrays in JSON, from where to where."""
    found, i = [], 0
    decoder = json.JSONDecoder()
    while (bracket := re.compile(r"[{\[]").search(text, i)) is not None:
        try:
            value, i = decoder.raw_decode(text, bracket.start())
            found.append((bracket.start(), i, value))
        except ValueError:
            i = bracket.start() + 1
    return found


def _keys(call: object) -> tuple[str, str, str] | None:
    """The keys of the name, of the arguments and of the id in a call that is an object."""
    if not isinstance(call, dict):
        return None
    if call.get(NAME) == ARGUMENTS:
        return "", "", ""
    by_value = {value: key for key, value in call.items() if isinstance(value, str)}
    arguments = next((key for key, value in call.items() if value == ARGUMENTS), None)
    if NAME not in by_value or arguments is None:
        return None
    return by_value[NAME], arguments, next((by_value[one] for one in IDS if one in by_value), "")


def _around(before: str, between: str, behind: str) -> dict[str, Any]:
    """The texts around calls, from what stands before the first, between two, and behind the last.

    The end that `before` and `between` have in common opens a call, the beginning that `between` and `behind` have in
    common closes one.
    """
    opening = common_end(before, between).lstrip()
    between = between.removesuffix(opening)
    section = before.removesuffix(opening)
    close = common_start([between, behind])
    return {
        "section_open": section if section.strip() else "",
        "open": opening,
        "close": close,
        "separator": between.removeprefix(close),
        "section_close": _without_end(behind.removeprefix(close)),
    }


def _without_end(text: str) -> str:
    """What closes a section, without the tag behind it that ends the generation."""
    tags = TAG.findall(text)
    return text.partition(tags[0])[0] + tags[0] if len(tags) > 1 else text


def _named_calls(one: str, two: str, start: int) -> NamedCalls:
    at, first, second = one.rindex(NAME, 0, start), two.index(NAME), two.index(OTHER)
    arguments = [found for found in _values(two) if found[2] == ARGUMENTS or (found[2] == {} and found[0] > second)]
    of_first, of_second = two[first + len(NAME) : arguments[0][0]], two[second + len(OTHER) : arguments[1][0]]
    around = _around(_with_ids(one[:at]), _with_ids(two[arguments[0][1] : second]), two[arguments[1][1] :])
    return NamedCalls(name_close=_alike(_with_ids(of_first), _with_ids(of_second)), **around)


def _alike(first: str, second: str) -> str:
    """A text that stands in two calls, with INDEX where their numbers stand in it."""
    return first if first == second else re.sub(r"\d+", INDEX, first)


def _with_ids(text: str) -> str:
    for call_id in IDS:
        text = text.replace(call_id, ID)
    return text


def _python_calls(one: str, two: str) -> PythonCalls | None:
    found = re.search(rf"\[{NAME}\({KEY}=(['\"]){VALUE}\1, ?{NUMBER_KEY}={NUMBER}\)\]", one)
    if found is None:
        return None
    return PythonCalls(section_open=one[: found.start()], section_close=one[found.end() :], separator=", ")


def _braced_calls(one: str, two: str) -> BracedCalls | None:
    found = re.search(rf"{NAME}\{{(?:{NUMBER_KEY}:{NUMBER},)?{KEY}:(?P<quote>\S+?){VALUE}(?P=quote)[^}}]*\}}", one)
    if found is None:
        return None
    end, other = two.index("}", two.index(NAME)) + 1, two.index(OTHER)
    return BracedCalls(
        quote=found["quote"], **_around(one[: found.start()], two[end:other], two[two.index("}", other) + 1 :])
    )


def _tagged_calls(one: str, two: str) -> TaggedCalls | None:
    if VALUE not in one or KEY not in one:
        return None
    at_key = one.index(KEY)
    at = one.rindex(NAME, 0, at_key)
    header = one[at + len(NAME) : at_key]
    name_close, n_header = _name_close(header, two[two.rindex(OTHER) + len(OTHER) :])
    value = one.index(VALUE, at_key)
    number_key = one.index(NUMBER_KEY, value)
    number = one.index(str(NUMBER), number_key + len(NUMBER_KEY))
    key_close, string_type = _typed(one[at_key + len(KEY) : value], one[number_key + len(NUMBER_KEY) : number])
    middle = one[value + len(VALUE) : number_key].replace(KEY, ID)
    tail = one[number + len(str(NUMBER)) :].replace(NUMBER_KEY, ID)
    value_close = common_start([middle, tail]).rstrip()
    last_close = value_close.replace(ID, NUMBER_KEY)
    call_end = two.index(last_close, two.index(NUMBER_KEY) + len(NUMBER_KEY)) + len(last_close)
    return TaggedCalls(
        name_close=name_close,
        key_open=header[n_header:],
        key_close=key_close,
        value_close=value_close,
        value_separator=middle.removeprefix(value_close).removesuffix(header[n_header:]),
        string_type=string_type,
        **_split(_around(one[:at], two[call_end : two.rindex(OTHER)], tail.removeprefix(value_close))),
    )


def _name_close(header: str, behind_other: str) -> tuple[str, int]:
    """What stands behind a name whether arguments follow or not, and its length in `header`."""
    numbers = r"(\d+)"
    pieces = zip_longest(re.split(numbers, header), re.split(numbers, behind_other))
    close, n = "", 0
    for i, (own, other) in enumerate(pieces):
        if own is None or other is None:
            break
        if i % 2:
            close, n = close + INDEX, n + len(own)
            continue
        common = common_start([own, other])
        close, n = close + common, n + len(common)
        if own != other:
            break
    return close, n


def _typed(of_string: str, of_number: str) -> tuple[str, str]:
    """What closes the key, and what in it tells that a string follows."""
    if of_string == of_number:
        return of_string, ""
    words = list(zip(re.split(r"(\w+)", of_string), re.split(r"(\w+)", of_number), strict=True))
    told = next(own for own, other in words if own != other)
    return "".join(own if own == other else TYPE for own, other in words), told


def _split(around: dict[str, Any]) -> dict[str, Any]:
    """A call's two opening tags as a section's and a call's: models leave the outer ones out at times."""
    opening = re.fullmatch(r"([<\[][^<>\[\]]*[>\]]\s*)([<\[].*)", around["open"], re.DOTALL)
    close = re.fullmatch(r"(\s*[<\[][^<>\[\]]*[>\]])(\s*[<\[][^<>\[\]]*[>\]])\s*", around["close"])
    if around["section_open"] or opening is None or close is None:
        return around
    return {
        "section_open": opening[1],
        "open": opening[2],
        "close": close[1],
        "section_close": close[2],
        "separator": around["separator"],
        "repeats": True,
    }
