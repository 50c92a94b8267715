"""Reads what a format has for calls: several of them, each in its own tags, in a section of theirs."""

from __future__ import annotations

import re

from llamabox.chat.formats.feed import Delimiters, Feed, Reading, blank, delimiters
from llamabox.chat.formats.form import ID, INDEX, BracedCalls, Calls, JsonCalls, NamedCalls, PythonCalls, TaggedCalls
from llamabox.chat.formats.reading.calls_json import JsonCall
from llamabox.chat.formats.reading.calls_named import NamedCall
from llamabox.chat.formats.reading.calls_python import BracedCall, PythonCall
from llamabox.chat.formats.reading.calls_tagged import TaggedCall
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.marks import is_mark

BETWEEN_JSON = (";", "}")
"""What stands between calls at times, or behind one: a brace too many."""

NAME = re.compile(r"[^\W\d][\w.:/\-]{0,255}")
ENDS_OF_NAMES = ".:/-"
"""Characters of names with which the form may go on behind one."""

TAG_ENDS = ">]}|"
"""What an opening ends with that stands in no other text by chance."""


class Section:
    """Reads the calls of a section, from behind its opening on."""

    def __init__(self, form: Calls, tools: Tools, *, others: tuple[str, ...] = ()) -> None:
        """`others` are texts that end a call although they are none of the form's own."""
        self._form = form
        self._tools = tools
        self._open = _core(form.open)
        self._section = _core(form.section_open)
        self.openings = _openings(form, self._section, self._open)
        ends = delimiters(
            form.close, form.section_close, form.separator, form.section_open, _core(form.open), *self.openings, *others
        )
        ends = Delimiters(text for text in ends.texts if text not in (",", ";"))
        self._behind = delimiters(
            form.close,
            form.section_close,
            form.separator,
            form.section_open,
            form.open,
            *self.openings,
            ",",
            "]",
            *BETWEEN_JSON,
        )
        self._is_list = isinstance(form, JsonCalls | PythonCalls)
        self._call: JsonCall | NamedCall | TaggedCall | PythonCall | BracedCall
        match form:
            case JsonCalls():
                self._call = JsonCall(form, ends, tools)
            case NamedCalls():
                self._call = NamedCall(form, ends, tools)
            case TaggedCalls():
                self._call = TaggedCall(form, ends, tools)
            case PythonCalls():
                self._call = PythonCall()
            case BracedCalls():
                self._call = BracedCall(form, ends, tools)
        self._array = delimiters("[")
        self._opening = delimiters(self._open)

    @property
    def is_bare(self) -> bool:
        """Whether a call has no opening: an answer that begins with its brace, its list or its name is one."""
        return not self.openings

    def read(self, feed: Feed, said: Said, opening: str) -> Reading[str]:
        """Read the calls behind `opening`, and what ends them. Returns what was taken where there is no call."""
        taken = opening
        if opening != self._open:
            taken += yield from blank(feed)
            if self._open:
                taken += (yield from self._opening.next(feed)) or ""
            elif self._is_list and not opening.endswith("["):
                taken += (yield from self._array.next(feed)) or ""
        return (yield from self._read_on(feed, said, taken))

    def _read_on(self, feed: Feed, said: Said, taken: str) -> Reading[str]:
        """Read calls behind what was `taken`. Returns that where there is no call."""
        n_before = said.n_calls
        while (yield from self._call.read(feed, said)):
            if not (yield from self._next(feed)):
                break
        return taken if said.n_calls == n_before else ""

    def _next(self, feed: Feed) -> Reading[bool]:
        """Take what stands behind a call. True: another one may follow."""
        goes_on = False
        while True:
            yield from blank(feed)
            found = yield from self._behind.next(feed)
            if found is None:
                if isinstance(self._form, JsonCalls):
                    goes_on = goes_on or (len(feed) > 0 and feed.text[feed.at] == "{")
                return goes_on and len(feed) > 0
            if found == self._open:
                return True
            if found in self.openings or found == self._section:
                goes_on = not self._open
                if found.endswith("["):
                    return True
                if self._is_list:
                    yield from self._array.next(feed)
            elif found == ",":
                goes_on = True
            elif found == self._form.section_close.strip():
                return False

    def read_bare(self, feed: Feed, said: Said) -> Reading[str]:
        """Read calls of tools that there are, if those come next. Returns what was taken where there is no call."""
        taken = ""
        if isinstance(self._form, PythonCalls) or (isinstance(self._form, JsonCalls) and self._form.is_array):
            taken = (yield from self._array.next(feed)) or ""
            taken += (yield from blank(feed)) if taken else ""
        if not isinstance(self._call, JsonCall):
            if isinstance(self._form, PythonCalls) and not taken:
                return ""
            if not (yield from self._begins_with_tool(feed)):
                return taken
            return (yield from self._read_on(feed, said, taken))
        n_before = said.n_calls
        while (yield from self._call.read(feed, said, known=True)):
            yield from blank(feed)
            yield from self._behind.next(feed)
            yield from blank(feed)
        return taken if said.n_calls == n_before else ""

    def _begins_with_tool(self, feed: Feed) -> Reading[bool]:
        """Whether the name of a tool comes next, which is not taken."""
        while True:
            found = NAME.match(feed.text, feed.at)
            is_whole = found is not None and found.end() < len(feed.text)
            if is_whole or feed.is_final or (found is None and len(feed)):
                return found is not None and (found[0] in self._tools or found[0].rstrip(ENDS_OF_NAMES) in self._tools)
            yield


def _core(text: str) -> str:
    """The text before a place, without blanks at its ends."""
    for place in (ID, INDEX):
        text = text.partition(place)[0]
    return text.strip()


def _is_tag_end(character: str) -> bool:
    return character in TAG_ENDS or is_mark(character)


def _openings(form: Calls, section: str, call: str) -> tuple[str, ...]:
    """The texts with which calls begin. The tags of a section are at times left out."""
    is_list = isinstance(form, PythonCalls) or (isinstance(form, JsonCalls) and form.is_array)
    if (is_list and section and not _is_tag_end(section[-1])) or section.startswith("{"):
        with_bracket = form.section_open.lstrip() + "["
        return tuple(dict.fromkeys((with_bracket, section + "[", section + "\n[", section.replace(": ", ":") + "[")))
    return tuple(dict.fromkeys(text for text in (section, call) if text))
