"""Values that are tags within tags: <items><item>a</item><item>b</item></items>."""

from __future__ import annotations

import json
import re
from typing import Any

from llamabox.chat.formats.values.python_text import python_value

MAX_DEPTH = 64


def nested_value(text: str, prefix: str) -> str | None:
    """The JSON of a value whose tags have `prefix` before them, or None where it has no tags or they do not fit."""
    tag = re.compile(re.escape(prefix) + r"<(/?)([\w.\-]+)>")
    if tag.match(text) is None:
        return None
    stack: list[tuple[str, list[tuple[str, Any]], int]] = [("", [], 0)]
    for found in tag.finditer(text):
        closes, name = found.groups()
        if not closes:
            if len(stack) > MAX_DEPTH:
                return None
            stack.append((name, [], found.end()))
            continue
        opened, inner, start = stack.pop()
        if opened != name or not stack:
            return None
        stack[-1][1].append((name, _value(inner, text[start : found.start()])))
    return json.dumps(_value(stack[0][1], ""), ensure_ascii=False) if len(stack) == 1 else None


def _value(inner: list[tuple[str, Any]], text: str) -> Any:
    if not inner:
        return json.loads(python_value(text)) if text else None
    names = [name for name, _ in inner]
    if set(names) == {"item"}:
        return [value for _, value in inner]
    return dict(inner)
