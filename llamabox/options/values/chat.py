"""Values of the options of chats, from their text."""

from __future__ import annotations

import json
from typing import Any

from llamabox.chat import config
from llamabox.chat.formats.known import FORMS
from llamabox.errors import InvalidRequest

ON_OFF_AUTO: dict[str, bool | None] = {"on": True, "off": False, "auto": None}
ON_OFF_AUTO |= {"true": True, "enabled": True, "1": True, "false": False, "disabled": False, "0": False, "-1": None}

CHAT_FORMATS = {name: name for name in FORMS}
REASONING_FORMATS = {name: name for name in config.REASONING_FORMATS}
EFFORTS: dict[str, str | None] = {"default": None, **{name: name for name in config.EFFORTS}}


def template_kwargs(text: str) -> dict[str, Any]:
    """An object of variables for a chat template, none of those that it gets from elsewhere."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    try:
        return config.check_kwargs(value)
    except InvalidRequest as error:
        raise ValueError(error.message) from None
