"""How the characters of a text stand in a JSON string: as Python writes them, and so templates a history."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import orjson

SPECIAL = frozenset((*range(32), ord('"'), ord("\\")))
"""Characters that cannot stand in a JSON string as they are."""

SIMPLE = {ord(character): escape for character, escape in zip('"\\\b\f\n\r\t', '"\\bfnrt', strict=True)}
"""What stands behind the backslash for those that have a letter; the others have \\u and four digits."""

PLAIN = r"[^\"\\\x00-\x1f]"
"""The class of all other characters."""


def escaped(text: str) -> str:
    """The text as it stands in a JSON string, without the quotes."""
    return orjson.dumps(text).decode()[1:-1]


def escapes(characters: AbstractSet[int]) -> str:
    """A regular expression for the escapes of some of the special characters; empty for none."""
    letters = "".join(SIMPLE[one] for one in sorted(characters) if one in SIMPLE).replace("\\", "\\\\")
    rest = sorted(characters - SIMPLE.keys())
    codes = [
        f"u00{high}[{digits}]"
        for high in "01"
        if (digits := "".join(f"{one & 15:x}" for one in rest if one >> 4 == int(high)))
    ]
    choices = [f"[{letters}]"] if letters else []
    return rf"\\(?:{'|'.join([*choices, *codes])})" if choices or codes else ""
