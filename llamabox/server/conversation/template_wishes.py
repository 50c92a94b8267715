"""Fields of OpenAI's chat that only the model's template can pass on: `reasoning_effort` and `verbosity`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from llamabox import checks
from llamabox.checks import wrong

EFFORT = "reasoning_effort"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates without degrees turn thinking on and off."""

VERBOSITY = "verbosity"
VERBOSITIES = ("low", "medium", "high")


def template_wishes(body: dict[str, Any], source: str) -> dict[str, Any]:
    """The template's variables that fulfil the body's wishes. `source` is the template's text.

    A wish that the template has no variable for is refused by name, as OpenAI does with models that do not reason,
    unless it asks for the default.
    """
    wishes: dict[str, Any] = {}
    known = _variables(source)
    if EFFORT in body:
        effort = checks.one_of(EFFORT, body[EFFORT], EFFORTS)
        wishes |= thinking_wishes(effort != "none", source) | effort_wishes(effort, source)
        if not wishes and effort != "none":
            raise _unread(EFFORT)
    if VERBOSITY in body:
        verbosity = checks.one_of(VERBOSITY, body[VERBOSITY], VERBOSITIES)
        if VERBOSITY in known:
            wishes[VERBOSITY] = verbosity
        elif verbosity != "medium":
            raise _unread(VERBOSITY)
    return wishes


def thinking_wishes(enabled: bool, source: str) -> dict[str, Any]:
    """The variables by which the template turns thinking on or off; empty where it has none."""
    return {name: enabled for name in SWITCHES if name in _variables(source)}


def effort_wishes(effort: str, source: str) -> dict[str, Any]:
    """The template's variable for how much is thought; empty where it has none."""
    return {EFFORT: effort} if EFFORT in _variables(source) else {}


def reads_wish(field: str, source: str) -> bool:
    """Whether the template can fulfil a wish of `reasoning_effort` or `verbosity`."""
    return not _variables(source).isdisjoint((field, *SWITCHES) if field == EFFORT else (field,))


@lru_cache(4)
def _variables(source: str) -> frozenset[str]:
    """The names above that the template reads as variables, not as attributes or in texts.

    The template is only cut into words here. It runs in a process of its own.
    """
    found, before = set(), ""
    try:
        for _, kind, word in Environment().lex(source):
            if kind == "name" and before != ".":
                found.add(word)
            before = word if kind != "whitespace" else before
    except TemplateSyntaxError:  # it cannot be rendered either, and that is told where it is tried
        return frozenset()
    return frozenset(found.intersection((EFFORT, *SWITCHES, VERBOSITY)))


def _unread(field: str) -> Exception:
    return wrong(field, "the template of this model has no variable for it, so nothing would change; leave it out")
