"""Where a text stops being indented."""

from __future__ import annotations


class Indentation:
    """Follows a text until a line, not the first, begins with fewer than `n_min` blanks and tabs.

    An empty line counts as such a line, as in llama.cpp. With `n_min` 0 no line does.
    """

    __slots__ = ("_n_blanks", "_n_min")

    def __init__(self, n_min: int) -> None:
        self._n_min = n_min
        self._n_blanks: int | None = None  # at the beginning of the line; None once it is beyond that

    def find_end(self, text: str) -> int | None:
        """Index in `text`, which goes on from earlier texts, behind the blanks of such a line; None without one."""
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
