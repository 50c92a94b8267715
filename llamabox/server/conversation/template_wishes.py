"""What only the model's template can pass on: `reasoning_effort` and `verbosity`, and the server's own defaults."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from llamabox import checks
from llamabox.chat.config import EFFORTS, KEEPING_NAMES, ChatConfig, keeping
from llamabox.checks import wrong

EFFORT = "reasoning_effort"
EFFORT_NAMES = (EFFORT, "reasoning_strength")
"""Variables for it."""
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


def can_keep_thoughts(source: str) -> bool:
    """Whether the template has a variable by which it shows the thoughts of earlier turns."""
    return not _variables(source).isdisjoint(KEEPING_NAMES)


def has_effort(source: str) -> bool:
    """Whether the template has a variable for degrees of thinking."""
    return not _variables(source).isdisjoint(EFFORT_NAMES)


def can_switch(source: str) -> bool:
    """Whether the template has a variable that turns thinking on and off."""
    return not _variables(source).isdisjoint(SWITCHES)


def effort_wishes(effort: str, source: str) -> dict[str, Any]:
    """The template's variables for how much is thought; empty where it has none."""
    return {name: effort for name in EFFORT_NAMES if name in _variables(source)}


def default_wishes(config: ChatConfig, source: str) -> dict[str, Any]:
    """The template's variables that fulfil the wishes of the server's options."""
    known = _variables(source)
    wishes: dict[str, Any] = {name: value for name, value in keeping(config.keeps_thoughts).items() if name in known}
    if config.thinks is not None:
        wishes |= thinking_wishes(config.thinks, source)
    if config.effort is not None:
        wishes |= thinking_wishes(config.effort != "none", source) | effort_wishes(config.effort, source)
    return {**wishes, **config.template_kwargs}


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
    return frozenset(found.intersection((*EFFORT_NAMES, *SWITCHES, VERBOSITY, *KEEPING_NAMES)))


def _unread(field: str) -> Exception:
    return wrong(field, "the template of this model has no variable for it, so nothing would change; leave it out")
