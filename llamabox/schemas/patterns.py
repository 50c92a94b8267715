"""Regular expressions of schemas: what no automaton can follow is taken out of them, and the words of small ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

MAX_LENGTH = 10_000
MAX_GROUPS = 100
"""Groups of a pattern whose words are listed."""

CLASS = r"\[\^?\]?(?:\\.|[^\\\]])*\]"
ITEM = re.compile(rf"\\.|{CLASS}|\(\?(?:<?[=!])|\((?:\?(?::|P?<\w+>))?|[)|]|.", re.DOTALL)
"""One item: an escape, a class, the head of a group, or a character."""

ANYTHING = r"(.|\n)*"

QUANTIFIER = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})[?+]?")
BACKREFERENCE = re.compile(r"\\(?:[1-9]|k<)")
SIMPLE_CLASS = re.compile(r"\[([\w ./:@#-]{1,64})\]", re.ASCII)
LITERAL = re.compile(r"[\w \-/:@#,;=_'\"~`!%&<>]")


def relax(pattern: str) -> tuple[str | None, str]:
    """The pattern without its look-arounds, and a word for what was taken out; None where nothing of it is left.

    The rest allows all that the pattern allows. A pattern that is not well formed comes back as it is.
    """
    items = list(_items(pattern))
    if any(BACKREFERENCE.match(item) for item in items):
        return None, "its pattern refers back"
    kept: list[str] = []
    at = 0
    what = ""
    while at < len(items):
        if items[at] in ("(?=", "(?!", "(?<=", "(?<!"):
            what = "its pattern looks around"
            at = _skip_quantifier(items, _end(items, at) + 1)
        elif items[at] in ("\\b", "\\B"):
            what = what or "its pattern asks for word boundaries"
            at += 1
        else:
            kept.append(items[at])
            at += 1
    left = _joined_anchors(kept)
    if any(item in "^$" for item in left[1:-1]):
        return None, "its pattern has anchors in its middle"
    return "".join(left), what


def whole(pattern: str) -> str | None:
    """A pattern that matches the whole of the strings in which `pattern` matches somewhere, without anchors.

    None where it has some elsewhere than at both its ends. A slash in it is escaped.
    """
    items = list(_items(pattern))
    begins, ends = items[:1] == ["^"], len(items) > 1 and items[-1] == "$"
    inner = items[begins : len(items) - ends]
    if any(item in ("^", "$", "\\A", "\\z", "\\Z", "\\b", "\\B") for item in inner):
        return None
    if (begins or ends) and _has_choice(inner):  # of which an anchor is in one part alone
        return None
    before, behind = "" if begins else ANYTHING, "" if ends else ANYTHING
    return f"{before}(?:{''.join(map(_slash_escaped, inner))}){behind}"


def _has_choice(items: list[str]) -> bool:
    """Whether there is a `|` that stands in no group."""
    depth = 0
    for item in items:
        depth += item.startswith("(") - (item == ")")
        if item == "|" and depth == 0:
            return True
    return False


def _slash_escaped(item: str) -> str:
    escaped = re.sub(r"(\\.)|/", lambda found: found[1] or r"\/", item, flags=re.DOTALL)
    return escaped.replace("\n", r"\n")


def words(pattern: str, *, at_most: int) -> frozenset[str] | None:
    """All strings that a pattern matches; None where they are more, or it is not of literals, choices and `?` alone."""
    if len(pattern) > MAX_LENGTH:
        return None
    items = list(_items(pattern))
    if len(items) < 2 or items[0] != "^" or items[-1] != "$" or sum(item[0] == "(" for item in items) > MAX_GROUPS:
        return None
    try:
        found, at = _choice(items, 1, at_most)
    except _TooMany:
        return None
    return frozenset(found) if at == len(items) - 1 else None


class _TooMany(Exception):
    """The pattern stands for too many words."""


def _choice(items: list[str], at: int, at_most: int) -> tuple[set[str], int]:
    """The words of the alternatives from `at` on, and where they end."""
    found: set[str] = set()
    series = {""}
    while at < len(items) and items[at] not in (")", "$"):
        if items[at] == "|":
            found |= series
            series = {""}
            at += 1
            continue
        here, at = _item(items, at, at_most)
        if at < len(items) and items[at] == "?":
            here, at = here | {""}, at + 1
        series = {first + second for first, second in product(series, here)}
        if len(series) > at_most or len(found) > at_most:
            raise _TooMany
    return found | series, at


def _item(items: list[str], at: int, at_most: int) -> tuple[set[str], int]:
    item = items[at]
    if item.startswith("(") and item not in ("(?=", "(?!", "(?<=", "(?<!"):
        found, end = _choice(items, at + 1, at_most)
        if end == len(items) or items[end] != ")":
            raise _TooMany
        return found, end + 1
    if simple := SIMPLE_CLASS.fullmatch(item):
        inner = simple.group(1)
        if "-" not in inner[1:-1]:
            return set(inner), at + 1
    elif LITERAL.fullmatch(item):
        return {item}, at + 1
    elif len(item) == 2 and item[0] == "\\" and not item[1].isalnum():
        return {item[1]}, at + 1
    raise _TooMany


def _items(pattern: str) -> Iterator[str]:
    return (found[0] for found in ITEM.finditer(pattern))


def _end(items: list[str], at: int) -> int:
    """The end of the group that begins at `at`; the end of the pattern where the group does not end."""
    depth = 0
    for i in range(at, len(items)):
        depth += items[i].startswith("(") - (items[i] == ")")
        if depth == 0:
            return i
    return len(items)


def _skip_quantifier(items: list[str], at: int) -> int:
    found = QUANTIFIER.match("".join(items[at : at + 16]))
    n_left = len(found[0]) if found else 0
    while n_left > 0:
        n_left -= len(items[at])
        at += 1
    return at


def _joined_anchors(items: list[str]) -> list[str]:
    """`^a$|^b$` as `^(?:a|b)$`: anchors are followed at the two ends of a pattern alone."""
    parts: list[list[str]] = [[]]
    depth = 0
    for item in items:
        depth += item.startswith("(") - (item == ")")
        if item == "|" and depth == 0:
            parts.append([])
        else:
            parts[-1].append(item)
    if len(parts) == 1 or not all(len(part) > 1 and part[0] == "^" and part[-1] == "$" for part in parts):
        return items
    inner = [["|", *part[1:-1]] for part in parts]
    return ["^", "(?:", *[item for part in inner for item in part][1:], ")", "$"]
