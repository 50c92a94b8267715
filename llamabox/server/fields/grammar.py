"""The form of an answer: `grammar`, `json_schema` and OpenAI's `response_format`.

The worker compiles the grammar, and finds out whether it can be followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox import checks
from llamabox.chat.formats.grammar.structural import structural_grammar
from llamabox.checks import describe, mapping, present, wrong
from llamabox.engine.request import GenerationParams, InnerGrammar
from llamabox.errors import InvalidRequest
from llamabox.schemas.relax import relax

MAX_TEXT = 256 << 10
"""Characters of a grammar and of a schema: some tenfold of the largest ones that people write."""

TYPES = "text, json_object, json_schema, regex, structural_tag or grammar"
"""Of a response_format."""

VLLM_KEYS = ("json", "json_object", "regex", "choice", "structural_tag")
"""What vLLM's `structured_outputs` may ask for."""

FINAL = "final"
"""The name of the answer's own grammar, to which that with thoughts and calls refers."""

MAX_CHOICES = 1024
MAX_NOTES = 8
MAX_WARNING = 2000

UNQUOTED = str.maketrans('"\\' + "".join(map(chr, [*range(32), 127])), "'/" + " " * 33)
"""Replacements of the characters that would end the quotes, or the header."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A GBNF grammar, a JSON schema, or a grammar with those that it refers to; or none of them.

    `field` is where the request has the grammar or the schema. `notes` say what was left out of schemas.
    """

    grammar: str = ""
    json_schema: str = ""
    field: str = ""
    notes: tuple[str, ...] = ()
    inner: tuple[InnerGrammar, ...] = ()

    @property
    def warning(self) -> str:
        """A value for the header Warning; empty where there is nothing to say."""
        return warning_of(self.notes)


def warning_of(notes: Sequence[str], other: str = "") -> str:
    """A value for the header Warning that names what was left out of schemas, or `other` where nothing was."""
    if not notes:
        return other
    more = len(notes) - MAX_NOTES
    said = "; ".join(notes[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")
    return header_warning(f"the answer may differ from the JSON schema: {said}")


def header_warning(text: str) -> str:
    """A value for the header Warning that says the text."""
    plain = text[:MAX_WARNING].encode("ascii", "backslashreplace").decode().translate(UNQUOTED)
    return f'299 llamabox "{plain}"'


def parse_grammar(body: dict[str, Any], defaults: GenerationParams) -> AnswerForm:
    """The grammar or schema of the body; the defaults' where the body says nothing of either.

    An empty grammar, and a response_format of type text, are a wish for plain text: the defaults do not hold then.
    `body` is without nulls.
    """
    schema = _from_response_format(body["response_format"]) if "response_format" in body else None
    if (asked := _from_vllm(body)) is not None:
        if schema is not None:
            raise wrong(asked[0], "cannot stand beside a response_format that asks for a form; leave out one")
        schema = asked[1]
    if "json_schema" in body:
        if schema is not None:
            raise wrong("json_schema", "cannot stand beside a response_format that asks for a form; leave out one")
        schema = schema_form("json_schema", body["json_schema"])
    grammar = checks.string("grammar", body["grammar"]) if "grammar" in body else None
    if grammar and schema is not None:
        raise wrong("grammar", "cannot stand beside a JSON schema or response_format; leave out one")
    if grammar:
        _check_length("grammar", grammar)
    if schema is None and grammar is None and "response_format" not in body:
        return AnswerForm(defaults.grammar, defaults.json_schema)
    return schema or AnswerForm(grammar or "", field="grammar" if grammar else "")


def _from_response_format(value: Any) -> AnswerForm | None:
    """The schema or grammar of a response_format; None for type text."""
    match mapping("response_format", value).get("type"):
        case "text":
            return None
        case "json_object":
            schema = value.get("schema")
            return schema_form("response_format.schema", {"type": "object"} if schema is None else schema)
        case "json_schema":
            return _named_schema(value)
        case "grammar":
            return _named_grammar(value)
        case "regex":
            return _regex("response_format.pattern", value.get("pattern"))
        case "structural_tag":
            return _structural("response_format", value)
        case None:
            raise wrong("response_format.type", f"is required: {TYPES}")
        case other:
            raise wrong("response_format.type", f"must be {TYPES}, not {describe(other)}")


def _from_vllm(body: dict[str, Any]) -> tuple[str, AnswerForm] | None:
    """The field and the form of vLLM's `structured_outputs`, or of its older `guided_regex`."""
    if "guided_regex" in body:
        return "guided_regex", _regex("guided_regex", body["guided_regex"])
    if "structured_outputs" not in body:
        return None
    field = "structured_outputs"
    given = present(mapping(field, body[field]))
    asked = {key: value for key, value in given.items() if value is not False}
    if len(asked) != 1:
        raise wrong(field, f"must have one of {', '.join(VLLM_KEYS)}, and nothing beside it")
    [(key, value)] = asked.items()
    field = f"{field}.{key}"
    match key:
        case "regex":
            return field, _regex(field, value)
        case "json":
            return field, schema_form(field, _from_text(field, value))
        case "json_object":
            checks.boolean(field, value)
            return field, schema_form(field, {"type": "object"})
        case "choice":
            choices = checks.strings(field, value, max_count=MAX_CHOICES, max_length=MAX_TEXT)
            return field, _regex(field, "|".join(map(re.escape, choices)))
        case "structural_tag":
            return field, _structural(field, mapping(field, _from_text(field, value)))
    raise wrong(field, f"is not known; known are {', '.join(VLLM_KEYS)}")


def _from_text(field: str, value: Any) -> Any:
    """A value that may be given as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except ValueError as error:
        raise wrong(field, f"is a text that is no JSON: {error}") from error


def _regex(field: str, value: Any) -> AnswerForm:
    """A regular expression that the whole text fits."""
    pattern = checks.string(field, value)
    if not pattern:
        raise wrong(field, "must not be empty: a regular expression")
    _check_length(field, pattern)
    return AnswerForm(inner=(InnerGrammar(name=FINAL, field=field, syntax="regex", definition=pattern),))


def _structural(field: str, value: dict[str, Any]) -> AnswerForm:
    """Text with tags in it, some of which begin what has a form."""
    notes: list[str] = []

    def schema(where: str, given: Any) -> dict[str, Any]:
        form = schema_form(where, {} if given is True else given)
        notes.extend(form.notes)
        made: dict[str, Any] = orjson.loads(form.json_schema)
        return made

    text, expressions = structural_grammar(value, field, schema)
    _check_length(field, text)
    inner = [InnerGrammar(name=FINAL, field=field, syntax="own", definition=text)]
    inner += [InnerGrammar(name=name, field=where, syntax="regex", definition=one) for name, where, one in expressions]
    return AnswerForm(notes=tuple(notes), inner=tuple(inner))


def _named_grammar(value: dict[str, Any]) -> AnswerForm:
    """GBNF in `grammar`."""
    field = "response_format.grammar"
    grammar = checks.string(field, value.get("grammar"))
    if not grammar:
        raise wrong(field, "must not be empty: a grammar in GBNF")
    _check_length(field, grammar)
    return AnswerForm(grammar, field=field)


def _check_length(field: str, grammar: str) -> None:
    if len(grammar) > MAX_TEXT:
        raise wrong(field, f"must have at most {MAX_TEXT} characters, not {len(grammar)}")


def _named_schema(value: dict[str, Any]) -> AnswerForm:
    """OpenAI's place for it, `json_schema.schema`, or the one that other servers take, `schema`."""
    named = value.get("json_schema")
    if named is None and value.get("schema") is not None:
        return schema_form("response_format.schema", value["schema"])
    named = mapping("response_format.json_schema", named)
    if named.get("schema") is None:
        raise wrong("response_format.json_schema.schema", "is required: an object with the JSON schema")
    strict = named.get("strict")
    if not isinstance(strict, bool | None):
        raise wrong("response_format.json_schema.strict", f"must be true or false, not {describe(strict)}")
    return schema_form("response_format.json_schema.schema", named["schema"], strict=strict is True)


def schema_form(field: str, value: Any, *, strict: bool = False) -> AnswerForm:
    """The form for a schema. With `strict`, one that cannot be kept to the letter is refused."""
    try:
        text = orjson.dumps(mapping(field, value)).decode()
    except TypeError as error:  # its own limit of depth
        raise wrong(field, "it is nested too deep") from error
    if len(text) > MAX_TEXT:
        raise wrong(field, f"must have at most {MAX_TEXT} characters as JSON, not {len(text)}")
    try:
        relaxed = relax(value, strict=strict)
    except InvalidRequest as error:
        raise wrong(field, error.message) from error
    if strict and relaxed.notes:
        raise wrong(field, f"cannot be kept to the letter, as `strict` asks: {'; '.join(relaxed.notes[:MAX_NOTES])}")
    return AnswerForm("", orjson.dumps(relaxed.schema).decode(), field, tuple(relaxed.notes))
