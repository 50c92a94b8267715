"""What chats get where their requests say nothing of it: the options of templates and thoughts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamabox.checks import describe, wrong
from llamabox.errors import InvalidRequest

REASONING_FORMATS = ("auto", "deepseek", "deepseek-legacy", "none")

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Degrees of thinking that a request may ask for."""

KEEPING_NAMES = {
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
    "drop_thinking": False,
}
"""Variables by which templates show the thoughts of earlier turns, with the values that do so."""


def keeping(keeps: bool) -> dict[str, bool]:
    """The variables that ask templates to show the thoughts of earlier turns, or not to."""
    return {name: value is keeps for name, value in KEEPING_NAMES.items()}


RESERVED = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "raise_exception",
        "strftime_now",
    }
)
"""Names a template gets from elsewhere; `chat_template_kwargs` may not shadow them."""


def check_kwargs(value: dict[str, Any]) -> dict[str, Any]:
    """Further variables of a template. Raises InvalidRequest for those that it gets from elsewhere.

    llama-server's `preserve_reasoning` stands for all names that templates have for it.
    """
    for name in ("enable_thinking", "preserve_reasoning"):
        if name in value and not isinstance(value[name], bool):  # a text, "false" too, is true to a template
            raise wrong(f"chat_template_kwargs.{name}", f"must be true or false, not {describe(value[name])}")
    taken = sorted(RESERVED.intersection(value))
    if taken:
        raise InvalidRequest(
            f"chat_template_kwargs: {taken[0]} is set by the server, it cannot be given here",
            field="chat_template_kwargs",
        )
    return {**keeping(value["preserve_reasoning"]), **value} if "preserve_reasoning" in value else value


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatConfig:
    """Defaults of a model's chats. Requests that say otherwise count more."""

    form: str | None = None  # a name of formats.known.FORMS: how the model writes; None: as its template shows
    reasoning_format: str = "auto"  # one of REASONING_FORMATS: where thoughts stand in a reply
    thinks: bool | None = None  # whether the template is told to let the model think; None: as the template has it
    effort: str | None = None  # one of EFFORTS; None: as the template has it
    thought_budget: int = -1  # tokens of an answer's thoughts; -1: no limit
    budget_message: str = ""  # said before the end of a thought that has used them up
    keeps_thoughts: bool = True  # of earlier turns, where the client sends them and the template can show them
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)  # further variables of the template
    prefills: bool = True  # a last message of the assistant is continued
    skips_parsing: bool = False  # an answer is told as the model writes it, thoughts and calls within the text
