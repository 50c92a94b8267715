"""Reads calls whose arguments stand between tags: <function=look_up><parameter=word>x</parameter></function>."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from llamabox.chat.formats.feed import Delimiters, Feed, Reading, blank, delimiters
from llamabox.chat.formats.form import ID, INDEX, TYPE, TaggedCalls
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.chat.formats.values import json_text
from llamabox.chat.formats.values.json_text import in_json, parsed
from llamabox.chat.formats.values.nested_tags import nested_value
from llamabox.chat.formats.values.python_text import python_value
from llamabox.chat.formats.values.tools import kind_of
from llamabox.marks import is_mark

MAX_NAME = 256
"""Characters of a name or a key; more are none."""

LINE_BREAK = Delimiters(["\n"])
CDATA = Delimiters(["<![CDATA["])

NUMBERS = {"integer": "number"}


class TaggedCall:
    """Reads one call, from behind its opening on."""

    def __init__(self, form: TaggedCalls, ends: Delimiters, tools: Tools) -> None:
        """`ends` are texts behind a call."""
        self._form = form
        self._ends = ends
        self._tools = tools
        close, _, behind = form.name_close.partition(INDEX)
        self._close = close.strip()
        self._behind_index = delimiters(behind) if behind.strip() else None
        self._name_close = delimiters(close, *ends.texts, form.key_open)
        self._between = delimiters(form.key_open, form.value_close.split(ID)[0], form.value_separator, *ends.texts)
        before, _, after = form.key_close.partition(TYPE)
        self._key_close = delimiters(before or form.key_close)
        self._type_close = delimiters(after) if after else None
        self._breaks = form.key_close.endswith("\n"), form.value_close.startswith("\n")

    def read(self, feed: Feed, said: Said) -> Reading[bool]:
        """Read a call. False: there is none, and nothing was taken."""
        start, stop = self._name_close.find(feed.text, feed.at, is_final=feed.is_final)
        while start == stop and not feed.is_final and len(feed) <= MAX_NAME:
            yield
            start, stop = self._name_close.find(feed.text, feed.at, is_final=feed.is_final)
        name = feed.text[feed.at : start].strip()
        if not name or len(name) > MAX_NAME or re.search(r"[\s<>{}]", name):
            return False
        if start == stop and name not in self._tools:
            return False
        feed.take(start - feed.at)
        is_closed = start < stop and self._close == feed.text[start:stop]
        if is_closed:
            feed.take(stop - start)
        index = said.call(name)
        if is_closed and self._behind_index is not None:
            yield from self._behind_index.until(feed, lambda number: None)
        yield from self._all_arguments(feed, said, index, name)
        return True

    def _all_arguments(self, feed: Feed, said: Said, index: int, name: str) -> Reading[None]:
        before = "{"
        told: set[str] = set()
        while True:
            yield from blank(feed)
            found = yield from self._between.next(feed)
            if found is not None and found in self._ends.texts:
                feed.take(-len(found))  # whoever called takes it
                found = None
            if found == self._form.key_open.strip():
                key = yield from self._key(feed)
                if key is None:
                    return  # cut off
                if key[0] in told:  # once more: the first one counts, as it may be passed on already
                    is_whole = yield from self._value(feed, lambda piece: None, name, *key)
                else:
                    told.add(key[0])
                    said.arguments(index, f"{before}{json.dumps(key[0], ensure_ascii=False)}: ")
                    before = ", "
                    is_whole = yield from self._value(feed, lambda piece: said.arguments(index, piece), name, *key)
                if not is_whole:
                    return
            elif found is None:
                if not len(feed) and feed.is_final:
                    if before == "{":  # even then a client wants arguments
                        said.arguments(index, "{}")
                    return
                break
        said.arguments(index, "{}" if before == "{" else "}")

    def _key(self, feed: Feed) -> Reading[tuple[str, str] | None]:
        """A key and what tells the type of its value."""
        pieces: list[str] = []
        if (yield from self._key_close.until(feed, pieces.append)) is None:
            return None
        kind: list[str] = []
        if self._type_close is not None and (yield from self._type_close.until(feed, kind.append)) is None:
            return None
        return "".join(pieces).strip(), "".join(kind).strip()

    def _value(self, feed: Feed, emit: Callable[[str], None], name: str, key: str, told: str) -> Reading[bool]:
        """Emit a value as JSON. False: it is cut off."""
        if self._tools.has_grammar(name) and not is_mark(self._form.value_close[0]):
            yield from blank(feed)
            if len(feed) and feed.text[feed.at] == '"':
                return (yield from json_text.value(feed, emit, self._ends))
        kinds = self._tools.kinds(name, key)
        if self._form.string_type and told:
            kinds = frozenset({"string"}) if told == self._form.string_type else kinds - {"string"}
        close = self._form.value_close.replace(ID, key).strip()
        text = _Raw(close, self._followers(), self._breaks)
        if kinds == {"string"}:
            emit('"')
            is_whole = yield from text.read(feed, lambda piece: emit(in_json(piece)))
            if is_whole:
                emit('"')
            return is_whole
        pieces: list[str] = []
        is_whole = yield from text.read(feed, pieces.append)
        said = "".join(pieces)
        before, _, _ = self._form.value_close.partition("</" + ID)
        nested = nested_value(said, before) if ID in self._form.value_close else None
        emit((nested or as_json(said, kinds)) if is_whole else said)
        return is_whole

    def _followers(self) -> tuple[str, ...]:
        form = self._form
        texts = (form.key_open, form.value_close.split(ID)[0], form.value_separator, *self._ends.texts)
        return tuple(filter(None, (text.strip() for text in texts)))


class _Raw:
    """Reads the text of a value.

    A text may have its own closing tag in it, as one about such files has. It ends at that one behind which the form
    goes on: with the next argument, or the end of the call.
    """

    def __init__(self, close: str, followers: tuple[str, ...], breaks: tuple[bool, bool]) -> None:
        """`breaks`: a line break belongs to the tag before the value, and to the one behind it."""
        self._close = Delimiters([close])
        self._cdata_close = Delimiters(["]]>" + close])
        self._followers = Delimiters(followers)
        self._breaks = breaks

    def read(self, feed: Feed, emit: Callable[[str], None]) -> Reading[bool]:
        if self._breaks[0]:
            yield from LINE_BREAK.next(feed)
        if (yield from CDATA.next(feed)) is not None:
            self._close, self._breaks = self._cdata_close, (False, False)
        kept = ""  # a line break which may belong to the tag
        while True:
            start, stop = self._close.find(feed.text, feed.at, is_final=feed.is_final)
            piece = kept + feed.take(start - feed.at)
            kept = "\n" if self._breaks[1] and piece.endswith("\n") else ""
            emit(piece.removesuffix("\n") if kept else piece)
            if start < stop:
                if (yield from self._goes_on(feed, stop - start)):
                    feed.take(stop - start)
                    return True
                emit(kept + feed.take(stop - start))
                kept = ""
            elif feed.is_final:
                emit(kept + feed.rest())
                return False
            else:
                yield

    def _goes_on(self, feed: Feed, n: int) -> Reading[bool]:
        """Whether behind the next `n` characters the form goes on. At the end of the text it does."""
        while True:
            rest = feed.text[feed.at + n :].lstrip()
            start, stop = self._followers.find(rest, 0, is_final=feed.is_final)
            if start == 0 and stop > 0:
                return True
            if start > 0:
                return False
            if feed.is_final:
                return True
            yield


def as_json(text: str, kinds: frozenset[str]) -> str:
    """A value in JSON, of one of the types where it can be. A string stays one where strings are allowed, unless it is
    one of the other types."""
    said = parsed(text.strip())
    if said is None:
        if "string" in kinds:
            return json.dumps(text, ensure_ascii=False)
        return python_value(text.strip())
    kind = kind_of(said[0])
    if kind == "string" and not kinds - {"string"}:
        return json.dumps(text, ensure_ascii=False)
    if kinds and kind not in kinds and NUMBERS.get(kind, kind) not in kinds and "string" in kinds:
        return json.dumps(text, ensure_ascii=False)
    return text.strip()
