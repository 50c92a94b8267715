"""Text that arrives in pieces, and what every reader does with it.

A reader is a generator: it yields where it needs more text, and goes on from there when there is some. So nothing is
ever read from the start again, and a reader is written as if all of the text were there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
"""Yields where it needs more text; what it returns is the result."""

Emit = Callable[[str], None]
"""Takes a piece of what was read, which may be empty."""


class Feed:
    """The text that is not read yet."""

    __slots__ = ("at", "is_final", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0  # what stands before it was read
        self.is_final = False  # no more text comes

    def add(self, text: str) -> None:
        self.text = self.text[self.at :] + text
        self.at = 0

    def __len__(self) -> int:
        return len(self.text) - self.at

    def take(self, n: int) -> str:
        """The next `n` characters."""
        self.at += n
        return self.text[self.at - n : self.at]

    def rest(self) -> str:
        """All that is there, taken."""
        return self.take(len(self))


class Delimiters:
    """Some texts to look for. None of them is empty."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(sorted(set(texts), key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")
        self._beginnings = {text[:n] for text in self.texts for n in range(1, len(text))}
        self._longest = max(map(len, self._beginnings), default=0)

    def find(self, text: str, at: int, *, is_final: bool = False) -> tuple[int, int]:
        """Where the first of them stands, from where to where; the longest, where several begin there.

        Both numbers are the same where there is none: then what may yet become one begins there, or the text ends.
        """
        found = self._pattern.search(text, at)
        if not is_final:
            last = len(text) if found is None else found.start()
            for start in range(max(at, len(text) - self._longest), min(last + 1, len(text))):
                if text[start:] in self._beginnings:
                    return start, start
        return (found.start(), found.end()) if found is not None else (len(text), len(text))

    def until(self, feed: Feed, emit: Emit) -> Reading[str | None]:
        """Emit the text up to the first of them, and take that. None: the text ended first, all of it emitted."""
        while True:
            start, stop = self.find(feed.text, feed.at, is_final=feed.is_final)
            emit(feed.take(start - feed.at))
            if start < stop:
                return feed.take(stop - start)
            if feed.is_final:
                return None
            yield

    def next(self, feed: Feed) -> Reading[str | None]:
        """Take one of them if it comes next."""
        while True:
            found = self._pattern.match(feed.text, feed.at)
            longer = not feed.is_final and feed.text[feed.at :] in self._beginnings
            if not longer and len(feed):
                return feed.take(found.end() - found.start()) if found is not None else None
            if feed.is_final:
                return None
            yield


@lru_cache(256)
def delimiters(*texts: str) -> Delimiters:
    """Those of `texts` that are not empty, without the blanks at their ends."""
    return Delimiters(stripped for text in texts if (stripped := text.strip()))


def blank(feed: Feed) -> Reading[str]:
    """Take the blanks that come next; at the end of the text, those that are left."""
    taken = ""
    while True:
        stop = feed.at
        while stop < len(feed.text) and feed.text[stop].isspace():
            stop += 1
        taken += feed.take(stop - feed.at)
        if stop < len(feed.text) or feed.is_final:
            return taken
        yield
