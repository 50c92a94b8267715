"""The input of a custom tool, out of the arguments that carry it: {"input": "…"}."""

from __future__ import annotations

import json
import re

INPUT = "input"
"""The only parameter of the function as which templates are shown a custom tool."""

OPENING = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
OPENING_SQUEEZED = f'{{"{INPUT}":"'

PLAIN = re.compile(r'[^"\\]+')
ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
HIGH, LOW = re.compile(r"\\u[dD][89abAB]"), re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
LOW_BEGUN = re.compile(r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?")
"""The two halves of a character beyond U+FFFF, and the beginning of the second."""


class InputText:
    """Reads the JSON text of arguments while it arrives. Arguments that are no object with an input of text first are
    the input themselves: nothing that a model wrote is lost."""

    def __init__(self) -> None:
        self._rest = ""  # not read yet
        self._is_open = False
        self._is_closed = False

    def push(self, piece: str) -> str:
        """More of the input, which may be nothing yet."""
        self._rest += piece
        if not self._is_open and not self._is_closed:
            if (found := OPENING.match(self._rest)) is None:
                return ""
            self._rest = self._rest[found.end() :]
            self._is_open = True
        return self._read()

    def end(self) -> str:
        """What is left when the arguments are over, or cut off."""
        if self._is_open or self._is_closed:
            return ""
        rest, self._rest = self._rest, ""
        squeezed = "".join(rest.split())
        return "" if squeezed == "{}" or OPENING_SQUEEZED.startswith(squeezed) else rest

    def _read(self) -> str:
        made: list[str] = []
        while self._is_open and self._rest:
            if plain := PLAIN.match(self._rest):
                made.append(plain[0])
                self._rest = self._rest[plain.end() :]
            elif self._rest[0] == '"':
                self._is_open, self._is_closed = False, True
            elif (escape := self._escape()) is not None:
                made.append(escape)
            else:
                break
        return "".join(made)

    def _escape(self) -> str | None:
        """The character of the escape that comes next; None where it is not all there yet."""
        found = ESCAPE.match(self._rest)
        if found is None:
            if ESCAPE_BEGUN.fullmatch(self._rest):
                return None
            self._rest = self._rest[1:]  # no escape: a backslash that stands for itself
            return "\\"
        escape = found[0]
        if HIGH.match(escape):
            behind = self._rest[6:12]
            if LOW.fullmatch(behind):
                escape += behind
            elif len(behind) < 6 and LOW_BEGUN.fullmatch(behind):
                return None
        self._rest = self._rest[len(escape) :]
        text: str = json.loads(f'"{escape}"')
        return text.encode(errors="replace").decode() if len(text) == 1 else text
