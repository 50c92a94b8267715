"""What the text of an answer must be: `grammar`, `json_schema` and OpenAI's `response_format`.

Whether a grammar can be followed is found out in the worker, which compiles it.
"""

from __future__ import annotations

from typing import Any

import orjson

from llamabox.engine.request import GenerationParams
from llamabox.server import numbers
from llamabox.server.numbers import describe, wrong

MAX_TEXT = 256 << 10
"""Characters of a grammar and of a schema: some tenfold of the largest ones that people write."""


def parse_grammar(body: dict[str, Any], defaults: GenerationParams) -> tuple[str, str]:
    """GBNF and JSON schema, of which at most one is not empty; the defaults' where the body says nothing of either.

    An empty grammar is none: a request can do without the command line's. Nulls are left out of `body` already.
    """
    schema = _from_response_format(body["response_format"]) if "response_format" in body else None
    if "json_schema" in body:
        if schema is not None:
            raise wrong("json_schema", "cannot stand beside a response_format that asks for JSON; leave out one")
        schema = _schema("json_schema", body["json_schema"])
    grammar = numbers.string("grammar", body["grammar"]) if "grammar" in body else None
    if grammar and schema is not None:
        raise wrong("grammar", "cannot stand beside a JSON schema or response_format; leave out one")
    if grammar and len(grammar) > MAX_TEXT:
        raise wrong("grammar", f"must have at most {MAX_TEXT} characters, not {len(grammar)}")
    if schema is None and grammar is None:
        return defaults.grammar, defaults.json_schema
    return grammar or "", schema or ""


def _from_response_format(value: Any) -> str | None:
    if not isinstance(value, dict):
        raise wrong("response_format", f"must be an object, not {describe(value)}")
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            schema = value.get("schema")
            return _schema("response_format.schema", {"type": "object"} if schema is None else schema)
        case "json_schema":
            return _named_schema(value)
        case None:
            raise wrong("response_format.type", "is required: text, json_object or json_schema")
        case other:
            raise wrong("response_format.type", f"must be text, json_object or json_schema, not {describe(other)}")


def _named_schema(value: dict[str, Any]) -> str:
    """OpenAI's place for it, `json_schema.schema`, or the one that other servers take, `schema`."""
    named = value.get("json_schema")
    if named is None and value.get("schema") is not None:
        return _schema("response_format.schema", value["schema"])
    if not isinstance(named, dict):
        raise wrong("response_format.json_schema", f"must be an object, not {describe(named)}")
    if named.get("schema") is None:
        raise wrong("response_format.json_schema.schema", "is required: an object with the JSON schema")
    return _schema("response_format.json_schema.schema", named["schema"])


def _schema(field: str, value: Any) -> str:
    if not isinstance(value, dict):
        raise wrong(field, f"must be an object, not {describe(value)}")
    text = orjson.dumps(value).decode()
    if len(text) > MAX_TEXT:
        raise wrong(field, f"must have at most {MAX_TEXT} characters as JSON, not {len(text)}")
    return text
