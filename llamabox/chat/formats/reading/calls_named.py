"""Reads calls that are a name and arguments in JSON: [TOOL_CALLS]look_up[ARGS]{"word": "x"}."""

from __future__ import annotations

import re

from llamabox.chat.formats.feed import Delimiters, Feed, Reading
from llamabox.chat.formats.form import ID, INDEX, NamedCalls
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.chat.formats.values import json_text

MAX_HEADER = 512
"""Characters between the opening of a call and its arguments; more are no call."""

NAME = r"(?P<name>[^\s{}\[\]<>\"']+?)"
PLACES = {ID: r"(?P<id>[^\s{}\[\]<>\"']+?)", INDEX: r"(?P<index>\d+)"}


class NamedCall:
    """Reads one call, from behind its opening on."""

    def __init__(self, form: NamedCalls, ends: Delimiters, tools: Tools) -> None:
        self._form = form
        self._ends = ends
        self._tools = tools
        opening = re.split(f"([{ID}{INDEX}])", form.open)
        before = "".join(opening[1:]) if len(opening) > 1 else ""
        self._header = re.compile(r"\s*" + _pattern(before) + NAME + _pattern(form.name_close.strip()) + r"\s*")

    def read(self, feed: Feed, said: Said) -> Reading[bool]:
        """Read a call. False: there is none, and nothing was taken."""
        while (stop := self._stop(feed)) < 0:
            if len(feed) > MAX_HEADER:
                return False
            if feed.is_final:
                stop = len(feed.text)
                break
            yield
        header = feed.text[feed.at : stop]
        found = self._header.fullmatch(header)
        if found is not None:
            given = found.groupdict()
            name, call_id = given["name"], given.get("id") or ""
            if given.get("index") is not None:
                call_id = _told_id(self._form, name, given["index"])
        else:
            name, call_id = next((word for word in re.findall(r"[\w.\-]+", header) if word in self._tools), ""), ""
        if not name or (feed.is_final and stop == len(feed.text) and name not in self._tools):
            return False
        feed.take(stop - feed.at)
        index = said.call(name, call_id)
        if len(feed) and feed.text[feed.at] == "{":
            yield from json_text.value(feed, lambda piece: said.arguments(index, piece), self._ends)
        elif not feed.is_final:
            said.arguments(index, "{}")
        return True

    def _stop(self, feed: Feed) -> int:
        """Where the arguments begin, or the call ends without any; -1: not yet."""
        brace = feed.text.find("{", feed.at)
        end, stop = self._ends.find(feed.text, feed.at, is_final=feed.is_final)
        if end < stop and (brace < 0 or end < brace):
            return end
        return brace


def _pattern(text: str) -> str:
    """A pattern for a text with places; blanks may be more or less than in it."""
    pieces = re.split(f"([{ID}{INDEX}])", text)
    return "".join(PLACES.get(piece) or r"\s*".join(map(re.escape, piece.split())) for piece in pieces)


def _told_id(form: NamedCalls, name: str, index: str) -> str:
    """The id where it is made of the name and a number: all that stands between two tags."""
    before = re.split(r"[\s<>\[\]|\ufdd0-\ufdef]", form.open)[-1]
    return f"{before}{name}{form.name_close[: form.name_close.index(INDEX)]}{index}"
