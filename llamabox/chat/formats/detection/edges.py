"""Texts cut where their tags are: what two renders have in common is never a part of a tag or word."""

from __future__ import annotations

import re
from collections.abc import Sequence

TAG = re.compile(r"<\|(?:open|close)\|>[^<]*<\|sep\|>|\]<\]\w+\[>\[<[^<>]*>|[<\[][^<>\[\]]*[>\]]")
"""A tag; Kimi K3's and MiniMax M3's are several tokens."""

UNIT = re.compile(rf"{TAG.pattern}|[<\[][^<>\[\]]*$|\w+|.", re.DOTALL)
"""A text's tags, words and other characters."""


def units(text: str) -> list[str]:
    return [found.group() for found in UNIT.finditer(text)]


def common_start(texts: Sequence[str]) -> str:
    """The whole units with which all texts begin."""
    pieces: list[str] = []
    for together in zip(*map(units, texts), strict=False):
        if len(set(together)) > 1:
            break
        pieces.append(together[0])
    return "".join(pieces)


def common_end(first: str, second: str) -> str:
    """The end that two texts have in common, from the beginning of a tag or a line of `first` on."""
    n = 0
    while n < min(len(first), len(second)) and first[-n - 1] == second[-n - 1]:
        n += 1
    if n in (len(first), len(second)):
        return first[len(first) - n :]
    starts = [found.start() for found in TAG.finditer(first)] + [i for i, one in enumerate(first) if one == "\n"]
    begun = re.search(r"[<\[][^<>\[\]]*$", first)
    if begun is not None:
        starts.append(begun.start())
    return first[min((start for start in starts if start >= len(first) - n), default=len(first)) :]


def first_tag(text: str) -> str:
    """The tag with which a text begins, and the blanks before it; or the text up to its first tag or line break."""
    found = re.match(rf"\s*(?:{TAG.pattern})", text) or re.match(r"\s*[^\n<]*", text)
    return found.group() if found is not None else ""


def from_last_tag(text: str) -> str:
    """The text from its last tag on, or all of it where it has none."""
    tags = list(TAG.finditer(text))
    return text[tags[-1].start() :] if tags else text
