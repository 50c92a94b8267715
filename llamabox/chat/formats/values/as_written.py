"""Arguments of calls in a history, which keep the text that the model once wrote."""

from __future__ import annotations

import json
import re
from typing import Any


class AsWritten(dict[str, Any]):
    """A call's arguments, which JSON of a call has as `text`: as the model once wrote them."""

    def __init__(self, value: dict[str, Any], text: str) -> None:
        super().__init__(value)
        self.text = text


PLACE = "a7f3a-{}-place"
PLACES = re.compile(r'"a7f3a-(\d{1,6})-place"')
"""What stands in JSON where a text is to stand."""

CALL_KEYS = frozenset({"arguments", "parameters", "function"})
"""Keys of a call, or of what a template makes of one, that lead to its arguments."""


def with_places(value: Any, texts: list[str]) -> Any:
    """A call with a place instead of each of its arguments that have a text, which is added to `texts`."""
    if isinstance(value, AsWritten):
        texts.append(value.text)
        return PLACE.format(len(texts) - 1)
    if isinstance(value, dict) and not CALL_KEYS.isdisjoint(value):
        return {key: with_places(one, texts) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_places(one, texts) for one in value]
    return value


def filled(told: str, texts: list[str]) -> str:
    """JSON of what `with_places` gave, with the texts in their places."""
    if not texts:
        return told
    return PLACES.sub(lambda found: texts[i] if (i := int(found[1])) < len(texts) else found[0], told)


def dumps(value: Any) -> str:
    """JSON of a call as most templates write it, with the texts that its arguments have."""
    texts: list[str] = []
    return filled(json.dumps(with_places(value, texts), ensure_ascii=False), texts)
