"""The words of a Lark grammar, and its rules while they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""Blanks as models were trained to write them, and none beside these."""

as_json = json.JSONEncoder(ensure_ascii=False).encode
"""JSON of a value. One encoder for all: there are thousands of small values in a grammar."""

ANYTHING = r"/(.|\n)*/"
SOMETHING = r"/(.|\n)+/"


@dataclass(frozen=True, slots=True)
class Inner:
    """The place of a custom tool's own grammar in that of the answer."""

    name: str  # by which the answer's grammar refers to it
    tool: str
    is_escaped: bool  # its texts stand in a JSON string


class Rules:
    """A grammar's rules. Control tokens stand in it by their ids: no text can take their place."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """`tokens` are the ids of control tokens, by their texts."""
        self._tokens = dict(tokens)
        self._split = re.compile(f"({'|'.join(map(re.escape, sorted(tokens, key=len, reverse=True))) or '(?!)'})")
        self._texts: dict[str, str] = {}  # the words of texts, of which most stand around each argument
        self._rules: dict[str, str] = {}
        self._inner: dict[tuple[str, bool], Inner] = {}

    def __contains__(self, name: str) -> bool:
        """Whether there is a rule of that name already."""
        return name in self._rules

    def add(self, name: str, body: str, attributes: str = "") -> str:
        """Add a rule, or a terminal where the name is in capitals. Returns its name."""
        self._rules.setdefault(name + attributes, body)
        return name

    @property
    def inner(self) -> tuple[Inner, ...]:
        """The grammars that the rules refer to."""
        return tuple(self._inner.values())

    def input(self, tool: str, *, is_escaped: bool) -> str:
        """The word for the input of a custom tool."""
        inner = Inner(f"input_{len(self._inner)}", tool, is_escaped)
        return f"@{self._inner.setdefault((tool, is_escaped), inner).name}"

    def input_string(self, tool: str) -> str:
        """The words for the same as a JSON string."""
        return f"{quoted(chr(34))} {self.input(tool, is_escaped=True)} {quoted(chr(34))}"

    def text(self, text: str) -> str:
        """The words for a text that is to be written as it is; empty for none."""
        words = self._texts.get(text)
        if words is None:
            pieces = (piece for piece in self._split.split(text) if piece)
            words = " ".join(f"<[{self._tokens[one]}]>" if one in self._tokens else quoted(one) for one in pieces)
            self._texts[text] = words
        return words

    def begins_with_token(self, text: str) -> bool:
        """Whether a control token comes first: then no text can be taken for the beginning of it."""
        found = self._split.match(text)
        return found is not None and bool(found.group())

    def token(self, text: str) -> str | None:
        """The word for a control token, None for what is none."""
        return f"<[{self._tokens[text]}]>" if text in self._tokens else None

    def up_to(self, name: str, end: str, body: str = "") -> str:
        """A rule for any text up to `end`, with it. `body` is the regular expression of texts that are not any."""
        if self.begins_with_token(end):
            text = self.add(f"{name.upper()}_BODY", body) if body else f"{self.any_text()}?"
            return self.add(name, f"{text} {self.text(end)}")
        pieces = [piece for piece in self._split.split(end) if piece]
        if "&" in body or "|" in body:  # a terminal may be of several, a rule with a suffix has one
            body = self.add(f"{name.upper()}_BODY", body)
        if len(pieces) == 1:
            return self.add(name, body or ANYTHING, f"[suffix={quoted(end)}]")
        self.add(f"{name}_text", body or ANYTHING, f"[suffix={quoted(pieces[0])}]")
        return self.add(name, f"{name}_text {self.text(end.removeprefix(pieces[0]))}")

    def any_text(self) -> str:
        """The terminal for any text that is not empty. Control tokens are none."""
        return self.add("SOMETHING", SOMETHING)

    def __str__(self) -> str:
        return "".join(f"{name}: {body}\n" for name, body in self._rules.items())


def quoted(text: str) -> str:
    """A text as a literal."""
    return as_json(text)


def json_rule(schema: Mapping[str, Any], field: str = "") -> str:
    """The words for a value that fits a schema, which stands in the request's `field`, or is a part of what does.

    The field is told in the schema's comment, so that a refusal can name it (grammar/guidance.py, `schemas_in`).
    """
    told = {"$comment": field} if field else {}
    return "%json " + as_json({**schema, **told, "x-guidance": SPACING})


def one_of(words: list[str]) -> str:
    return f"({' | '.join(words)})"
