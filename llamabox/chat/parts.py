"""What an answer is made of. The writers of the APIs put parts into their own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)  # not frozen: one is made of each token, and that would take twice the time
class Text:
    """More of what is said to the user; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks before it speaks; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool is called. The calls of an answer are numbered from 0."""

    index: int
    id: str
    name: str
    is_custom: bool = False  # its input is a text of the tool's own, which Input parts tell; else Arguments


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of a call's arguments; never empty. That of a call that was not cut off is an object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Input:
    """More of the input of a custom tool's call, as the tool is to get it; never empty. There may be none."""

    index: int
    text: str


Part = Text | Reasoning | Call | Arguments | Input
