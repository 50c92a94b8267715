"""The Jinja environment that chat templates are written for.

What templates may use is set by the habit of the libraries that train models: an immutable sandbox, whitespace trimmed
around blocks, `break` and `continue`, and a handful of names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llamabox.chat.formats.values.as_written import filled, with_places


class Refused(TemplateError):
    """The template itself said that it cannot render these messages (`raise_exception`)."""


class GenerationBlock(Extension):
    """`{% generation %} … {% endgeneration %}`: marks the model's words for training; a prompt is the same without."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Fixed(list[Any]):
    """A list that a template may not change. Its own it may: some count calls with `append` and `pop`."""


class _Environment(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        own = type(obj) is list and attr in ("append", "pop", "insert", "extend")
        return own or super().is_safe_attribute(obj, attr, value)


def compile_template(source: str) -> Template:
    """The template, ready to render. Raises jinja2.TemplateSyntaxError.

    Compiling already evaluates constant expressions, so a hostile source must be compiled where it may be rendered.
    """
    environment = _Environment(
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
    """Plain JSON. Jinja's own filter escapes HTML and sorts keys, which no model was trained on.

    What `map` and `select` give is a list to llama.cpp, for whose engine some templates were written.
    """
    texts: list[str] = []
    if indent is None and separators is None and not sort_keys:
        value = with_places(value, texts)
    told = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=lambda given: list(given) if isinstance(given, Iterator) else _refuse_json(given),
    )
    return filled(told, texts)


def _refuse_json(value: object) -> NoReturn:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def raise_exception(message: object) -> NoReturn:
    raise Refused(str(message))


def strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def now() -> dict[str, str]:
    """The variables with the time that llama-server gives to every template."""
    today = datetime.now()
    return {"date_string": today.strftime("%d %b %Y"), "datetime": today.strftime("%b %d %Y")}
