"""The Jinja environment that chat templates are written for.

What templates may use is set by the habit of the libraries that train models: an immutable sandbox, whitespace trimmed
around blocks, `break` and `continue`, and a handful of names.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Refused(TemplateError):
    """The template itself said that it cannot render these messages (`raise_exception`)."""


class GenerationBlock(Extension):
    """`{% generation %} … {% endgeneration %}`: marks the model's words for training; a prompt is the same without."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_template(source: str) -> Template:
    """The template, ready to render. Raises jinja2.TemplateSyntaxError.

    Compiling already evaluates constant expressions, so a hostile source must be compiled where it may be rendered.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols, GenerationBlock],
    )
    environment.filters["tojson"] = to_json
    environment.globals.pop("lipsum", None)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(source)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON. Jinja's own filter escapes HTML and sorts keys, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: object) -> NoReturn:
    raise Refused(str(message))


def strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
