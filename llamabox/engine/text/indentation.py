"""Where a text stops being indented."""

from __future__ import annotations


class Indentation:
    """Follows a text for the first line, after its first one, that begins with fewer than `n_min` blanks and tabs.

    An empty line is such a line as well, as in llama.cpp. With `n_min` 0 there is none.
    """

    __slots__ = ("_n_blanks", "_n_min")

    def __init__(self, n_min: int) -> None:
        self._n_min = n_min
        self._n_blanks: int | None = None  # at the beginning of the line; None once it is beyond that

    def find_end(self, text: str) -> int | None:
        """Where in `text`, which goes on from the texts before, the line's first word would stand; None: nowhere."""
        if self._n_min <= 0 or (self._n_blanks is None and "\n" not in text):
            return None
        for at, character in enumerate(text):
            if self._n_blanks is not None:
                if character in " \t":
                    self._n_blanks += 1
                    continue
                if self._n_blanks < self._n_min:
                    return at
            self._n_blanks = 0 if character == "\n" else None
        return None
