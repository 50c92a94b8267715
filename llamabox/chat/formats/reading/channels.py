"""Reads answers that are several messages, each behind a header that names its channel or who is spoken to.

Headers are often malformed: a channel doubled, or unknown, a recipient in the wrong place, none at all. What is not
named as a thought or a call is text.
"""

from __future__ import annotations

import re

from llamabox.chat.formats.feed import Feed, Reading, blank, delimiters
from llamabox.chat.formats.form import Channels
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.chat.formats.reading.sections import Section
from llamabox.chat.formats.values import json_text
from llamabox.marks import is_mark

MAX_HEADER = 512
"""Characters of a header; more are text."""


class ChannelReader:
    """Reads an answer. `calls` reads a call's text where it has more than arguments."""

    def __init__(self, form: Channels, calls: Section | None, tools: Tools, prompt: str) -> None:
        self._form = form
        self._calls = calls
        self._tools = tools
        close = form.header_close.strip()
        self._is_open = bool(close) and prompt.rstrip().endswith(close)
        header = prompt[prompt.rfind(form.start.strip()) :] if form.start.strip() else ""
        self._first = header if self._is_open else ""
        self._ends = delimiters(*form.ends, form.start, form.channel)
        self._header_ends = delimiters(form.header_close, *form.ends)
        self._starts = delimiters(form.start, form.channel, form.recipient, form.header_close)
        self._calls_begin = delimiters(*(calls.openings if calls else ()))

    def read(self, feed: Feed, said: Said) -> Reading[None]:
        """Read the answer to its end."""
        if self._is_open:
            yield from self._message(feed, said, self._first)
        elif not (yield from self._has_header(feed)):
            yield from self._body(feed, said.text)
        while len(feed) or not feed.is_final:
            said.pause()
            header = yield from self._header(feed)
            if header is None:
                said.text(feed.rest())
                return
            yield from self._message(feed, said, header)

    def _has_header(self, feed: Feed) -> Reading[bool]:
        """Whether the answer begins with a header, as it should."""
        while True:
            rest = feed.text[feed.at :].lstrip()
            start, stop = self._starts.find(rest, 0, is_final=feed.is_final)
            known = rest.lower()
            if start == 0 and stop > 0:
                return True
            if known.startswith(("assistant", "to=")):
                return True
            waits = not rest or start == 0 or "assistant".startswith(known) or "to=".startswith(known)
            if not waits or feed.is_final:
                return False
            yield

    def _header(self, feed: Feed) -> Reading[str | None]:
        """The header of the next message. None: there is none, and nothing was taken."""
        while True:
            start, stop = self._header_ends.find(feed.text, feed.at, is_final=feed.is_final)
            if start < stop:
                header = feed.take(start - feed.at)
                feed.take(stop - start)
                return header if feed.text[start:stop] == self._form.header_close.strip() else header + "\n"
            if feed.is_final or len(feed) > MAX_HEADER:
                if feed.is_final and len(feed) <= MAX_HEADER and any(map(is_mark, feed.text[feed.at :])):
                    feed.rest()  # a header that was cut off says nothing
                    return ""
                return None
            yield

    def _message(self, feed: Feed, said: Said, header: str) -> Reading[None]:
        form = self._form
        recipient = _word_behind(header, form.recipient.strip())
        name = recipient.removeprefix(form.function)
        if recipient and recipient not in (*form.thought, *form.text) and name not in ("assistant", "user"):
            yield from self._call(feed, said, name)
            return
        channel = recipient or (_word_behind(header, form.channel.strip()) if form.channel else "")
        is_thought = any(channel.startswith(word) for word in form.thought)
        yield from self._body(feed, said.reasoning if is_thought else said.text)

    def _body(self, feed: Feed, emit: object) -> Reading[None]:
        assert callable(emit)
        yield from self._ends.until(feed, emit)

    def _call(self, feed: Feed, said: Said, name: str) -> Reading[None]:
        if self._calls is not None:
            opening = yield from self._calls_begin.until(feed, lambda piece: None)
            if opening is not None:
                yield from self._calls.read(feed, said, opening)
            yield from self._ends.until(feed, said.text)
            return
        yield from blank(feed)
        index = said.call(name)
        if len(feed) and feed.text[feed.at] == "{":
            yield from json_text.value(feed, lambda piece: said.arguments(index, piece), self._ends)
            yield from self._ends.until(feed, lambda piece: None)
            return
        pieces: list[str] = []
        end = yield from self._ends.until(feed, pieces.append)
        given = "".join(pieces).strip()
        said.arguments(index, given or ("{}" if end is not None or feed.is_final else ""))


def _word_behind(header: str, mark: str) -> str:
    """The word behind the last `mark`, which may have blanks before it."""
    at = header.rfind(mark)
    found = re.match(r"\s*([\w.\-:]+)", header[at + len(mark) :]) if at >= 0 and mark else None
    return found.group(1) if found is not None else ""
