"""Grammars in llguidance's own form, limits for it, and its complaints in one line.

Without numpy, for the process that only tries grammars out (workers.text.grammars.trial).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import orjson
from llguidance import LLMatcher, LLParserLimits

from llamabox.errors import InvalidRequest

OPTIONS = {"whitespace_flexible": False}
"""No blanks but inside strings: as little choice as can be, so that most of an answer is forced."""

BRACES = re.compile(r'"(?:[^"\\]|\\.)*"|([{}])')
"""Strings, and the braces beside them."""


def limits() -> LLParserLimits:
    """Bounds of one grammar: 30,000 lexer states take some 60 MB, and a mask some 20 ms at most.

    Each character that a grammar forces has a state: the names of a thousand properties have 10,000.
    """
    return LLParserLimits(max_lexer_states=30_000, max_grammar_size=200_000, verbose_errors=False)


def schema_grammar(schema: str) -> str:
    """llguidance's grammar for a JSON schema, which is the JSON text of an object. Raises InvalidRequest.

    Not through llguidance's own function, which keeps the interpreter locked for 0.1 s with a large one; this does for
    a millisecond or two.
    """
    if '"x-guidance"' in schema:
        raise InvalidRequest('"x-guidance" is not for requests')
    try:
        wanted = orjson.loads(schema) or {"type": "object"}  # {} stands for any object
        text = orjson.dumps({**wanted, "x-guidance": OPTIONS}).decode()
    except (ValueError, TypeError) as error:
        raise InvalidRequest(str(error)) from error
    return f'{{"grammars":[{{"json_schema":{text}}}]}}'


def lark_grammar(text: str) -> str:
    """llguidance's grammar for a Lark text."""
    grammar: str = LLMatcher.grammar_from_lark(text)
    return grammar


def answer_grammar(text: str, inner: Mapping[str, str]) -> str:
    """llguidance's grammar for a Lark text that refers to others by @name."""
    others = [{"name": name, "lark_grammar": other} for name, other in inner.items()]
    return orjson.dumps({"grammars": [{"lark_grammar": text}, *others]}).decode()


def schemas_in(text: str) -> Iterator[tuple[str, str]]:
    """The JSON schemas in a Lark text that this server wrote (chat/formats/grammar/words.py, `json_rule`).

    Each is (the request's field that it stands in, a grammar for it alone).
    """
    for found in text.split("%json ")[1:]:
        try:
            schema = orjson.loads(found[: _end_of_object(found)])
        except ValueError:  # a literal with these words in it
            continue
        if isinstance(schema, dict) and isinstance(field := schema.get("$comment"), str):
            yield field, orjson.dumps({"grammars": [{"json_schema": schema}]}).decode()


def _end_of_object(text: str) -> int:
    """Where the JSON object ends that a text begins with; 0: it begins with none."""
    depth = 0
    for found in BRACES.finditer(text):
        if found[1] is not None:
            depth += 1 if found[1] == "{" else -1
        if depth <= 0:
            return found.end() if found[1] is not None else 0
    return 0


def complaint(matcher: LLMatcher) -> str | None:
    """Why the matcher cannot go on, in a line; None while it can."""
    if not matcher.is_error():
        return None
    lines = str(matcher.get_error()).replace("<non-verbose/>", "").split("\n")
    if lines[0].strip() == "NoExtensionBias":
        return "nothing fits it"
    return " ".join(" ".join(lines).split())[:300]
