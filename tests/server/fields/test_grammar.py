"""grammar, json_schema and response_format: where each may stand, and what counts."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from llamabox.checks import present
from llamabox.engine.request import GenerationParams
from llamabox.errors import InvalidRequest
from llamabox.server.fields.grammar import MAX_TEXT, parse_grammar
from llamabox.server.fields.request import parse_options
from llamabox.server.generation.settings import settings_object
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.json import dumps
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.harness import running

GBNF = 'root ::= "a"'
SCHEMA = {"type": "string"}
SCHEMA_TEXT = '{"type":"string"}'
NAMED = "response_format.json_schema.schema"
OBJECT_TEXT = '{"type":"object"}'


def parse(body: dict[str, Any], **defaults: str) -> tuple[str, str]:
    form = parse_grammar(present(body), GenerationParams(**defaults))
    return form.grammar, form.json_schema


def asked(schema: dict[str, Any], strict: object = None) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": strict, "schema": schema}}


def deep(n_levels: int) -> dict[str, Any]:
    return {"items": deep(n_levels - 1)} if n_levels else {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("", "")),
        ({"grammar": GBNF}, (GBNF, "")),
        ({"grammar": None, "json_schema": SCHEMA}, ("", SCHEMA_TEXT)),
        ({"grammar": "", "json_schema": SCHEMA}, ("", SCHEMA_TEXT)),
        ({"grammar": GBNF, "json_schema": None}, (GBNF, "")),
        ({"json_schema": {}}, ("", "{}")),
        ({"response_format": {"type": "text"}}, ("", "")),
        ({"response_format": {"type": "text"}, "grammar": GBNF}, (GBNF, "")),
        ({"response_format": {"type": "grammar", "grammar": GBNF}}, (GBNF, "")),
        ({"response_format": {"type": "json_object"}}, ("", OBJECT_TEXT)),
        ({"response_format": {"type": "json_object", "schema": None}}, ("", OBJECT_TEXT)),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, ("", SCHEMA_TEXT)),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, ("", SCHEMA_TEXT)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            ("", SCHEMA_TEXT),
        ),
    ],
)
def test_what_each_place_says(body: dict[str, Any], expected: tuple[str, str]) -> None:
    assert parse(body) == expected
    params = parse_options(present(body), ModelConfig(), GenerationParams(), INFO).params
    assert (params.grammar, params.json_schema) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"grammar": 5}, "grammar"),
        ({"grammar": "x" * (MAX_TEXT + 1)}, "grammar"),
        ({"grammar": GBNF, "json_schema": SCHEMA}, "grammar"),
        ({"grammar": GBNF, "json_schema": {}}, "grammar"),
        ({"grammar": GBNF, "response_format": {"type": "json_object"}}, "grammar"),
        ({"json_schema": SCHEMA, "response_format": {"type": "json_object"}}, "json_schema"),
        ({"json_schema": SCHEMA, "response_format": {"type": "grammar", "grammar": GBNF}}, "json_schema"),
        ({"grammar": GBNF, "response_format": {"type": "grammar", "grammar": GBNF}}, "grammar"),
        ({"response_format": {"type": "grammar"}}, "response_format.grammar"),
        ({"response_format": {"type": "grammar", "grammar": ""}}, "response_format.grammar"),
        ({"response_format": {"type": "grammar", "grammar": "x" * (MAX_TEXT + 1)}}, "response_format.grammar"),
        ({"json_schema": "string"}, "json_schema"),
        ({"json_schema": [1]}, "json_schema"),
        ({"json_schema": True}, "json_schema"),
        ({"json_schema": {"enum": ["x" * 64] * 100_000}}, "json_schema"),
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "sound"}}, "response_format.type"),
        ({"response_format": {"type": 123}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": []}}, "response_format.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": 5}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, NAMED),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, NAMED),
        ({"response_format": asked(SCHEMA, strict=1)}, "response_format.json_schema.strict"),
        ({"response_format": asked({"type": "array", "uniqueItems": True}, strict=True)}, NAMED),
        ({"json_schema": deep(300)}, "json_schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_names_its_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.field == field
    assert f"'{field}'" in caught.value.message


def test_the_command_lines_counts_where_the_request_brings_none() -> None:
    for body in ({}, {"grammar": None}, {"response_format": None}):
        assert parse(body, grammar=GBNF) == (GBNF, "")
        assert parse(body, json_schema=SCHEMA_TEXT) == ("", SCHEMA_TEXT)
    assert parse({"grammar": 'root ::= "b"'}, json_schema=SCHEMA_TEXT) == ('root ::= "b"', "")
    assert parse({"json_schema": {}}, grammar=GBNF) == ("", "{}")


@pytest.mark.parametrize("body", [{"grammar": ""}, {"response_format": {"type": "text"}}], ids=str)
def test_a_request_can_ask_for_plain_text_whatever_the_command_line_says(body: dict[str, Any]) -> None:
    assert parse(body, grammar=GBNF) == ("", "")
    assert parse(body, json_schema=SCHEMA_TEXT) == ("", "")


def test_the_settings_show_the_grammar() -> None:
    options = parse_options({"grammar": GBNF}, ModelConfig(), GenerationParams(), INFO)
    assert orjson.loads(dumps(settings_object(options, INFO)))["grammar"] == GBNF


SETS = {"type": "object", "properties": {"größe": {"type": "array", "uniqueItems": True}}}


def test_what_is_given_up_is_a_warning_and_strict_refuses_it_by_name() -> None:
    form = parse_grammar({"response_format": asked(SETS)}, GenerationParams())
    assert "uniqueItems" not in form.json_schema
    assert form.warning.startswith('299 llamabox "the answer may differ from the JSON schema: #/properties/gr')
    assert form.warning.isascii()
    assert form.warning.count('"') == 2
    with pytest.raises(InvalidRequest, match="#/properties/größe/uniqueItems: its items must differ"):
        parse({"response_format": asked(SETS, strict=True)})
    assert parse_grammar({"response_format": asked(SCHEMA, strict=True)}, GenerationParams()).warning == ""


def test_a_warning_is_one_header_however_much_there_is_to_say() -> None:
    many = {"type": "object", "properties": {f'"\r\n{i}' * 50: {"not": {"type": "null"}} for i in range(100)}}
    warning = parse_grammar({"json_schema": many}, GenerationParams()).warning
    assert len(warning) < 2100
    assert warning.isprintable()
    assert warning.count('"') == 2


def test_the_reply_has_the_warning_and_only_where_there_is_one() -> None:
    async def scene() -> None:
        async with running(FakeTextClient(saying("word"))) as server:
            for stream in (False, True):
                body = {"prompt": "x", "response_format": asked(SETS), "stream": stream}
                reply = await server.http.post("/v1/completions", json=body)
                assert reply.headers.get_list("warning") == [parse_grammar(body, GenerationParams()).warning]
                reply = await server.http.post("/v1/completions", json={"prompt": "x", "stream": stream})
                assert "warning" not in reply.headers

    asyncio.run(scene())
