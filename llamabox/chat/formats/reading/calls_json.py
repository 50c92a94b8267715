"""Reads calls that are JSON objects: {"name": "look_up", "arguments": {"word": "x"}}."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from llamabox.chat.formats.feed import Delimiters, Emit, Feed, Reading
from llamabox.chat.formats.form import JsonCalls
from llamabox.chat.formats.reading.said import Said, Tools
from llamabox.chat.formats.values import json_text

NAMES = ("name", "tool_name")
ARGUMENTS = ("arguments", "parameters", "args", "input")
IDS = ("id", "tool_call_id", "call_id")
MAX_HEADER = 4096
"""Characters before the arguments of a call; more are no call."""

BLANK = re.compile(r"\s*")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
COLON = re.compile(r"\s*:\s*")


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a call, up to its arguments."""

    name: str
    call_id: str
    stop: int  # where the arguments begin, or the call ends
    n_open: int  # objects that are open there
    arguments: str | None = None  # they came before the name, or there are none
    has_ended: bool = False


class NoCall(Exception):
    """What was read is not the beginning of a call."""


class NeedsMore(Exception):
    """It may yet be one."""


class JsonCall:
    """Reads one call, which begins with its brace."""

    def __init__(self, form: JsonCalls, ends: Delimiters, tools: Tools) -> None:
        """`ends` are texts behind a call."""
        self._form = form
        self._ends = ends
        self._tools = tools

    def read(self, feed: Feed, said: Said, *, known: bool = False) -> Reading[bool]:
        """Read a call. False: there is none, and nothing was taken. `known`: only tools that there are count."""
        while True:
            try:
                header = self._header(feed.text, feed.at, is_final=feed.is_final)
                break
            except NoCall:
                return False
            except NeedsMore:
                if feed.is_final or len(feed) > MAX_HEADER:
                    return False
            yield
        if known and header.name not in self._tools:
            return False
        feed.take(header.stop - feed.at)
        if self._form.id_key and not header.call_id and not header.has_ended:
            yield from self._id_behind(feed, said, header)
            return True
        index = said.call(header.name, header.call_id)
        if header.arguments is not None:
            said.arguments(index, header.arguments)
        else:
            yield from self._arguments(feed, lambda piece: said.arguments(index, piece))
        if not header.has_ended:
            yield from self._rest(feed, header.n_open)
        return True

    def _id_behind(self, feed: Feed, said: Said, header: Header) -> Reading[None]:
        """Read a call whose id may stand behind its arguments: it is told once both are there."""
        pieces: list[str] = []
        if header.arguments is not None:
            pieces.append(header.arguments)
        else:
            yield from self._arguments(feed, pieces.append)
        call_id = yield from self._rest(feed, header.n_open)
        said.arguments(said.call(header.name, call_id), "".join(pieces))

    def _header(self, text: str, at: int, *, is_final: bool) -> Header:
        i = _blank(text, at)
        if i == len(text):
            raise NeedsMore
        if text[i] != "{":
            raise NoCall
        i, n_open = i + 1, 1
        name, call_id, arguments = "", "", None
        while True:
            i = _blank(text, i)
            if i == len(text):
                raise NeedsMore
            if text[i] == "}":
                n_open -= 1
                i += 1
                if n_open == 0:
                    if not name:
                        raise NoCall
                    return Header(name, call_id, i, 0, arguments or "{}", has_ended=True)
            elif text[i] == ",":
                i += 1
            elif text[i] == '"':
                key, i = _string(text, i)
                i = _colon(text, i)
                if not self._form.arguments_key and not name:
                    return Header(key, "", i, n_open)
                if key == "function" and text[i] == "{":
                    i, n_open = i + 1, n_open + 1
                elif key == self._form.arguments_key or key in ARGUMENTS:
                    if name:
                        return Header(name, call_id, i, n_open)
                    arguments, i = _value(text, i)
                elif key == self._form.name_key or key in NAMES or (key == "function" and not name):
                    name, i = _string(text, i)
                else:
                    value, i = _value(text, i)
                    if key == self._form.id_key or key in IDS:
                        call_id = value.strip('"')
            else:
                raise NoCall

    def _arguments(self, feed: Feed, emit: Emit) -> Reading[None]:
        if feed.text[feed.at] == "{":
            yield from json_text.value(feed, emit, self._ends)
            return
        pieces: list[str] = []
        is_whole = yield from json_text.value(feed, pieces.append, self._ends)
        emit(_as_object("".join(pieces)) if is_whole else "".join(pieces))

    def _rest(self, feed: Feed, n_open: int) -> Reading[str]:
        """Take what stands behind the arguments: further fields, and braces that close what is open, or more of them.

        A call that is not closed ends where one of `ends` comes. Returns the call's id where that is among the fields.
        """
        key = call_id = ""
        is_value = False  # a colon came last
        while True:
            yield from _blanks(feed)
            if not len(feed):
                return call_id
            character = feed.text[feed.at]
            if character == "}":
                feed.take(1)
                n_open -= 1
                if n_open <= 0:
                    return call_id
            elif character in ',:"' and n_open > 0:
                if character == '"':
                    pieces: list[str] = []
                    is_whole = yield from json_text.value(feed, pieces.append, self._ends)
                    if not is_value:
                        key = "".join(pieces).strip('"')
                    elif is_whole and (key == self._form.id_key or key in IDS):
                        call_id = "".join(pieces).strip('"')
                else:
                    feed.take(1)
                    is_value = character == ":"
                    yield from _blanks(feed)
                    if len(feed) and feed.text[feed.at] not in '",:}':
                        yield from json_text.value(feed, _forget, self._ends)
            else:
                return call_id


def _forget(piece: str) -> None:
    pass


def _blanks(feed: Feed) -> Reading[None]:
    while True:
        feed.at = _blank(feed.text, feed.at)
        if len(feed) or feed.is_final:
            return
        yield


def _blank(text: str, i: int) -> int:
    found = BLANK.match(text, i)
    assert found is not None
    return found.end()


def _string(text: str, i: int) -> tuple[str, int]:
    found = STRING.match(text, i)
    if found is None:
        raise NeedsMore if text[i] == '"' else NoCall
    said = json_text.parsed(found.group())
    return (said[0] if said is not None else found.group(1)), found.end()


def _colon(text: str, i: int) -> int:
    found = COLON.match(text, i)
    if found is None:
        if _blank(text, i) == len(text):
            raise NeedsMore
        raise NoCall
    if found.end() == len(text):
        raise NeedsMore
    return found.end()


def _value(text: str, i: int) -> tuple[str, int]:
    """The text of one value that is all there."""
    try:
        _, stop = json.JSONDecoder(strict=False).raw_decode(text, i)
    except (ValueError, RecursionError) as error:
        raise NeedsMore from error
    if stop == len(text) and text[stop - 1] not in '"}]':
        raise NeedsMore
    return text[i:stop], stop


def _as_object(text: str) -> str:
    """Arguments that are no object: an object within a string is taken out, null is none."""
    said = json_text.parsed(text)
    if said is None:
        return text
    if said[0] is None or said[0] == "":
        return "{}"
    if isinstance(said[0], str):
        inner = json_text.parsed(said[0])
        if inner is not None and isinstance(inner[0], dict):
            return said[0]
    return text
