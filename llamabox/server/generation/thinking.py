"""Where the thoughts of a chat's answer stand, and how long they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamabox import checks
from llamabox.chat.config import REASONING_FORMATS, ChatConfig
from llamabox.chat.formats.form import Format
from llamabox.checks import INT32_MAX, first_present, wrong

BUDGET_NAMES = ("reasoning_budget_tokens", "thinking_budget_tokens")
"""The first one present counts."""

LEGACY = "deepseek-legacy"
"""The format of replies that tell a thought apart and within the text, and of streams that tell it within the text."""

MAX_MESSAGE = 4096
"""Characters that are said before the end of a thought."""


@dataclass(frozen=True, slots=True)
class ThinkingWish:
    """What a body and the server's options say about thoughts."""

    format: str  # one of REASONING_FORMATS
    n_tokens: int  # of all thoughts of an answer; -1: no limit
    message: str  # said before the end of a thought that has used them up

    def is_apart(self, *, streams: bool) -> bool:
        """Whether thoughts are told apart from the answer's text."""
        return self.format != "none" and not (streams and self.format == LEGACY)


USUAL = ThinkingWish("auto", -1, "")
"""Where nobody says anything of thoughts."""


def parse_thinking(body: dict[str, Any], config: ChatConfig, form: Format, *, can_switch: bool) -> ThinkingWish:
    """`can_switch`: the template itself can keep the model from thinking. Raises InvalidRequest naming the field."""
    default = 0 if config.thinks is False and not can_switch else config.thought_budget
    field = first_present(body, BUDGET_NAMES)
    n_tokens = default if field is None else checks.integer(field, body[field], -1, INT32_MAX)
    return ThinkingWish(
        checks.one_of("reasoning_format", body.get("reasoning_format", config.reasoning_format), REASONING_FORMATS),
        n_tokens,
        _message(body, config, form),
    )


def _message(body: dict[str, Any], config: ChatConfig, form: Format) -> str:
    field = "reasoning_budget_message"
    if field not in body:
        return config.budget_message
    message = checks.string(field, body[field])
    if len(message) > MAX_MESSAGE:
        raise wrong(field, f"must have at most {MAX_MESSAGE} characters, not {len(message)}")
    close = form.thought.close.strip() if form.thought is not None else ""
    if close and close in message:
        raise wrong(field, f"must not have the end of a thought in it, {close!r}")
    return message
