"""The declaration of an option, and the two ways to write one down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llamabox.options.values import common as v

GENERAL = "general"
SERVER = "server"
COMPLETION = "server/completion"

Printer = Callable[[Any], str]
"""Prints a field's value in the words of its option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. Without `parse` it is a switch that stores `const`."""

    group: str
    flags: tuple[str, ...]
    dest: str
    help: str
    metavar: str = ""
    parse: Callable[..., object] | None = None  # gets the words that follow, a string each
    n_words: int = 1  # at most; fewer where the next one begins with a dash, or there is none
    const: object = True
    words: frozenset[str] = frozenset()  # not empty: the value may be left out, and only one of these is a value
    accumulates: bool = False  # several uses add up instead of the last one winning
    env: str | None = None
    parse_env: Callable[[str], object] | None = None  # where it differs from `parse`
    hidden: tuple[str, ...] = ()  # further spellings, not printed
    protects: bool = False  # a slip in its name must not leave the server open
    default: str | Printer | None = None  # printed instead of the field's value, or prints it; "" prints none


def switch(
    group: str, flags: str, dest: str, help: str, const: object = True, env: str | None = None, hidden: str = ""
) -> Option:
    parse_env = v.env_flag if env else None
    return Option(
        group=group,
        flags=tuple(flags.split()),
        dest=dest,
        help=help,
        const=const,
        env=env,
        parse_env=parse_env,
        hidden=tuple(hidden.split()),
        default="",
    )


def valued(
    group: str,
    flags: str,
    dest: str,
    parse: Callable[..., object],
    help: str,
    *,
    metavar: str = "N",
    env: str | None = None,
    hidden: str = "",
    default: str | Printer | None = None,
    accumulates: bool = False,
    n_words: int = 1,
    protects: bool = False,
) -> Option:
    return Option(
        group=group,
        flags=tuple(flags.split()),
        dest=dest,
        help=help,
        metavar=metavar,
        parse=parse,
        n_words=n_words,
        protects=protects,
        env=env,
        hidden=tuple(hidden.split()),
        default=default,
        accumulates=accumulates,
    )


completion = partial(valued, COMPLETION)
"""A valued option of the largest group, `server/completion`."""
