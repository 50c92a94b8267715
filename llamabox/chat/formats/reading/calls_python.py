"""Reads calls in Python's words, [look_up(word="x")], and with bare keys, call:look_up{word:<|"|>x<|"|>}."""

from __future__ import annotations

import json
import re
import string

from llamabox.chat.formats.feed import Delimiters, Feed, Reading, blank
from llamabox.chat.formats.form import BracedCalls
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.chat.formats.values import json_text
from llamabox.chat.formats.values.json_text import in_json
from llamabox.chat.formats.values.python_text import WORDS, python_value
from llamabox.marks import is_mark

MAX_NAME = 256
"""Characters of a name; more are none."""

CALL = re.compile(r"\s*,?\s*(?P<name>[A-Za-z_][\w.\-]*)\s*\(")
KEY = re.compile(r"\s*,?\s*(?P<key>[^\s=,'\"()\[\]{}][^=,'\"()\[\]{}]*?)\s*=(?!=)\s*")
"""Not Python's names alone: a property of JSON may have any, and the grammar writes it as it is."""

STOPS = frozenset('{}[],:"<' + string.whitespace)
OPENERS, CLOSERS = "([{", ")]}"
CLOSED_BY = {"{": "}", "[": "]"}


class PythonCall:
    """Reads one call of a list, from its name on."""

    def read(self, feed: Feed, said: Said) -> Reading[bool]:
        """Read a call. False: there is none, and nothing was taken."""
        while (found := CALL.match(feed.text, feed.at)) is None:
            if feed.is_final or not _may_become_call(feed.text[feed.at :]):
                return False
            yield
        feed.take(found.end() - feed.at)
        index = said.call(found["name"])
        before = "{"
        while True:
            argument = yield from _argument(feed)
            if argument is None:
                return True  # cut off
            text, is_last = argument
            if told := _keyword(text):
                said.arguments(index, before + told)
                before = ", "
            if is_last:
                said.arguments(index, "{}" if before == "{" else "}")
                return True


def _may_become_call(text: str) -> bool:
    return len(text) <= MAX_NAME and re.fullmatch(r"\s*,?\s*([A-Za-z_][\w.\-]*\s*)?", text) is not None


def _argument(feed: Feed) -> Reading[tuple[str, bool] | None]:
    """The text up to a comma or the closing bracket, and whether it was the bracket. None: the text ended first."""
    depth, quote, i = 0, "", 0
    while True:
        while feed.at + i < len(feed.text):
            character = feed.text[feed.at + i]
            if quote:
                if character == "\\":
                    if feed.at + i + 1 == len(feed.text):
                        break
                    i += 1
                elif character == quote:
                    quote = ""
            elif character in "'\"":
                quote = character
            elif character in OPENERS:
                depth += 1
            elif character == "," and depth == 0:
                return feed.take(i + 1)[:-1], False
            elif character in CLOSERS:
                if depth == 0:
                    return feed.take(i + 1)[:-1], True
                depth -= 1
            i += 1
        if feed.is_final:
            return None
        yield


def _keyword(text: str) -> str:
    """`key=value` as `"key": value` in JSON; "" for what is neither."""
    found = KEY.match(text)
    if found is None:
        return ""
    return f"{json.dumps(found['key'], ensure_ascii=False)}: {python_value(text[found.end() :].strip())}"


class BracedCall:
    """Reads one call, from behind its opening on."""

    def __init__(self, form: BracedCalls, ends: Delimiters, tools: Tools) -> None:
        self._quote = Delimiters([form.quote])
        self._ends = ends
        self._tools = tools

    def read(self, feed: Feed, said: Said) -> Reading[bool]:
        """Read a call. False: there is none, and nothing was taken."""
        while (brace := feed.text.find("{", feed.at)) < 0:
            if feed.is_final or len(feed) > MAX_NAME:
                return False
            yield
        name = feed.text[feed.at : brace].strip()
        if not name or re.search(r"[\s<>\"']", name):
            return False
        feed.take(brace - feed.at)
        index = said.call(name)
        still_open: list[str] = []
        while True:
            yield from blank(feed)
            if not len(feed):
                return True  # cut off
            start, stop = self._quote.find(feed.text, feed.at, is_final=feed.is_final)
            if start == feed.at and stop > start:
                feed.take(stop - start)
                said.arguments(index, '"')
                end = yield from self._quote.until(feed, lambda piece: said.arguments(index, in_json(piece)))
                if end is None:
                    return True  # cut off
                said.arguments(index, '"')
                continue
            if start == stop == feed.at and not feed.is_final:
                yield
                continue
            end_start, end_stop = self._ends.find(feed.text, feed.at, is_final=feed.is_final)
            if end_start == end_stop == feed.at and not feed.is_final:
                yield
                continue
            if end_start == feed.at and end_stop > end_start:
                said.arguments(index, "".join(reversed(still_open)))
                return True
            character = feed.text[feed.at]
            if character in CLOSED_BY:
                still_open.append(CLOSED_BY[character])
                said.arguments(index, feed.take(1))
            elif character in "]}":
                feed.take(1)
                said.arguments(index, still_open.pop())
                if not still_open:
                    return True
            elif character == '"':
                yield from json_text.value(feed, lambda piece: said.arguments(index, piece), self._ends)
            elif character in ",:":
                said.arguments(index, feed.take(1) + " ")
            else:
                word = yield from _word(feed)
                said.arguments(index, word)


def _word(feed: Feed) -> Reading[str]:
    """A key or a value without quotes, in JSON."""
    n = 0
    while True:
        while n < len(feed) and feed.text[feed.at + n] not in STOPS and not is_mark(feed.text[feed.at + n]):
            n += 1
        if n < len(feed) or feed.is_final:
            break
        yield
    word = feed.take(max(n, 1))
    is_key = feed.text.startswith(":", feed.at)
    try:
        if not is_key:
            json.loads(word := WORDS.get(word, word))
            return word
    except ValueError:
        pass
    return json.dumps(word, ensure_ascii=False)
