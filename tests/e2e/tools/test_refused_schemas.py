"""A schema or grammar that cannot be followed is refused by the client's own name of its field, in every API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess

ELSEWHERE = {"$ref": "http://127.0.0.1:9/schema.json"}
"""Fits every check of shape; only the compiler finds that it is nowhere."""
WRONG = {"type": "object", "properties": {"a": ELSEWHERE}, "required": ["a"]}
RIGHT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
HI = [{"role": "user", "content": "Hi"}]
LARK = {"syntax": "lark", "definition": "start: nowhere"}

CHAT = {"messages": HI, "max_tokens": 4}
RESPONSES = {"input": "Hi", "max_output_tokens": 4}
MESSAGES = CHAT


def function(schema: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{len(str(schema))}", "parameters": schema}}


def flat(schema: object) -> dict[str, Any]:
    return {"type": "function", "name": f"f{len(str(schema))}", "parameters": schema}


def theirs(schema: object) -> dict[str, Any]:
    return {"name": f"f{len(str(schema))}", "input_schema": schema}


def named(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


FORM = "response_format.json_schema.schema"
RESPONSES_FORM = {"type": "json_schema", "name": "x", "schema": WRONG}
CUSTOM = {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": LARK}}}
CUSTOM_FLAT = {"type": "custom", "name": "c", "format": {"type": "grammar", **LARK}}
SPACE = {"type": "namespace", "name": "n", "tools": [flat(RIGHT), flat(WRONG)]}
TAG = {"type": "tag", "begin": "<a>", "content": {"type": "json_schema", "json_schema": WRONG}, "end": "</a>"}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("/completion", {"prompt": "x", "n_predict": 4, "json_schema": WRONG}, "json_schema"),
    ("/completion", {"prompt": "x", "n_predict": 4, "grammar": "root ::= nowhere"}, "grammar"),
    ("/v1/completions", {"prompt": "x", "max_tokens": 4, "response_format": named(WRONG)}, FORM),
    ("/v1/chat/completions", {**CHAT, "response_format": named(WRONG)}, FORM),
    (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "json_object", "schema": WRONG}},
        "response_format.schema",
    ),
    (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "grammar", "grammar": "root ::= nowhere"}},
        "response_format.grammar",
    ),
    (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "regex", "pattern": "(a"}},
        "response_format.pattern",
    ),
    (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "structural_tag", "format": TAG}},
        "response_format.format.content.json_schema",
    ),
    ("/v1/chat/completions", {**CHAT, "structured_outputs": {"json": WRONG}}, "structured_outputs.json"),
    ("/v1/chat/completions", {**CHAT, "tools": [function(RIGHT), function(WRONG)]}, "tools[1].function.parameters"),
    (
        "/v1/chat/completions",
        {**CHAT, "tools": [function(RIGHT)], "response_format": named(WRONG)},
        FORM,
    ),
    ("/v1/chat/completions", {**CHAT, "tools": [CUSTOM]}, "tools[0].custom.format.grammar.definition"),
    ("/v1/responses", {**RESPONSES, "text": {"format": RESPONSES_FORM}}, "text.format.schema"),
    ("/v1/responses", {**RESPONSES, "tools": [flat(RIGHT), flat(WRONG)]}, "tools[1].parameters"),
    ("/v1/responses", {**RESPONSES, "tools": [flat(RIGHT)], "text": {"format": RESPONSES_FORM}}, "text.format.schema"),
    ("/v1/responses", {**RESPONSES, "tools": [flat(RIGHT), SPACE]}, "tools[1].tools[1].parameters"),
    ("/v1/responses", {**RESPONSES, "tools": [CUSTOM_FLAT]}, "tools[0].format.definition"),
    ("/v1/messages", {**MESSAGES, "tools": [theirs(RIGHT), theirs(WRONG)]}, "tools[1].input_schema"),
    (
        "/v1/messages",
        {**MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": WRONG}}},
        "output_config.format.schema",
    ),
    (
        "/v1/messages",
        {**MESSAGES, "output_format": {"type": "json_schema", "schema": WRONG}},
        "output_format.schema",
    ),
]


@pytest.mark.parametrize(("path", "body", "field"), CASES)
def test_the_client_s_own_field_is_named(
    serve: Callable[..., ServerProcess], path: str, body: dict[str, Any], field: str
) -> None:
    server = serve("-c", "4096", "-np", "2")
    for stream in (False, True):
        reply = server.post(path, {**body, "stream": stream})
        assert reply.status_code == 400, reply.text
        error = reply.json()["error"]
        assert error["message"].startswith(f"Field '{field}': ")
        assert error.get("param", field) == field
