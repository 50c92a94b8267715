"""JSON as models write it: passed on while it arrives, with what is broken mended where that is plain."""

from __future__ import annotations

import json
from typing import Any

from llamabox.chat.formats.feed import Delimiters, Emit, Feed, Reading
from llamabox.marks import is_mark

ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
CLOSERS = {"{": "}", "[": "]"}


def value(feed: Feed, emit: Emit, ends: Delimiters) -> Reading[bool]:
    """Read one value and emit it as it is written. True: it is whole. The next character is no blank.

    Line breaks within strings become escapes, and brackets that are still open where one of `ends` comes are closed.
    """
    span = _Span(ends)
    while True:
        begin = feed.at
        is_over = span.read(feed)
        said = feed.text[begin : feed.at]
        emit(said if not span.broken else span.mend(said))
        if is_over:
            emit(span.missing())
            return True
        if feed.is_final:
            emit(feed.rest())
            return False
        yield


class _Span:
    """Finds where a value ends."""

    def __init__(self, ends: Delimiters) -> None:
        self._ends = ends
        self._open: list[str] = []
        self._in_string = False
        self._is_escaped = False
        self._has_begun = False
        self.broken: list[int] = []  # where control characters stand in strings, from the beginning of what was read
        self._begin = 0

    def read(self, feed: Feed) -> bool:
        """Move the feed on to the end of the value, or of the text. True: there the value ends."""
        text, i = feed.text, feed.at
        self.broken = []
        self._begin = i
        while i < len(text):
            if self._in_string:
                i = self._in_a_string(text, i)
            else:
                step = self._outside(feed, i)
                if step <= 0:
                    feed.at = i
                    return step == 0
                i += step
            if not self._in_string and not self._open and self._has_begun and text[i - 1] in '"}]':
                feed.at = i
                return True
        feed.at = i
        return bool(feed.is_final and self._has_begun and not self._open and not self._in_string)

    def _in_a_string(self, text: str, i: int) -> int:
        character = text[i]
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._in_string = False
        if character < " ":
            self.broken.append(i - self._begin)
        return i + 1

    def _outside(self, feed: Feed, i: int) -> int:
        """Characters to go on by; 0: the value ends here; -1: more text is needed to tell."""
        character = feed.text[i]
        if character == '"':
            if not self._open and self._has_begun:
                return 0
            self._in_string = True
        elif character in CLOSERS:
            self._open.append(CLOSERS[character])
        elif character in "}]":
            if not self._open:
                return 0
            self._open.pop()
        elif (not self._open and (character == "," or character.isspace())) or is_mark(character):
            return 0
        elif any(end[0] == character for end in self._ends.texts):
            if any(feed.text.startswith(end, i) for end in self._ends.texts):
                return 0
            if not feed.is_final and any(end.startswith(feed.text[i:]) for end in self._ends.texts):
                return -1
        self._has_begun = True
        return 1

    def mend(self, said: str) -> str:
        characters = list(said)
        for i in self.broken:
            characters[i] = ESCAPES.get(characters[i], f"\\u{ord(characters[i]):04x}")
        return "".join(characters)

    def missing(self) -> str:
        """What closes the brackets that are open."""
        return "".join(reversed(self._open))


def parsed(text: str) -> tuple[Any] | None:
    """The value of a text in JSON, which may be None; None where it is no JSON."""
    try:
        return (json.loads(text, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def in_json(said: str) -> str:
    """A text within a JSON string, without the quotes."""
    return json.dumps(said, ensure_ascii=False)[1:-1]
