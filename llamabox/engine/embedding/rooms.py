"""Where passages stand in a batch, so that each gets the vector that it would get alone."""

from __future__ import annotations

from typing import Protocol

TILE = 64
"""GGML_FA_TILE_Q of ggml's CPU backend: rows, and keys, of a tile of its flash attention. It works in tiles on plain
floats only, and fewer rows go key by key instead."""

LANES = 16
"""Numbers that the widest CPUs sum side by side: only at multiples of it are a passage's sums in a tile the same."""

SHORT = 24
"""Tokens up to which a passage is computed key by key. Measured with MiniLM on one core, passages a second, key by key
against in tiles: 471 and 156 of 5 tokens, 98 and 78 of 20, 56 and 78 of 31, 21 and 39 of 62."""


class Room(Protocol):
    """One batch while it is planned."""

    n_used: int  # rows

    def place(self, n_tokens: int) -> int | None:
        """Give a passage its place. Returns its first row, or None without room."""

    @property
    def n_rows(self) -> int:
        """Rows of the whole batch, filling ones included."""


class PlainRoom:
    """One after the other. The first passage always has room."""

    def __init__(self, n_rows: int) -> None:
        self._n_most = n_rows
        self.n_used = 0

    def place(self, n_tokens: int) -> int | None:
        start = self.n_used
        if start and start + n_tokens > self._n_most:
            return None
        self.n_used += n_tokens
        return start

    @property
    def n_rows(self) -> int:
        return self.n_used


class TiledRoom:
    """For ggml's attention on a CPU without a KV memory, which has two paths that round differently.

    A passage's length alone decides its path. On the path in tiles it lies in one tile or begins with one, and skipped
    rows are filled; on the path key by key its place changes nothing.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_most = n_rows
        self._is_short = False
        self.n_used = 0

    def place(self, n_tokens: int) -> int | None:
        is_short = n_tokens <= SHORT
        start = self._start(n_tokens)
        if self.n_used:
            n_most = min(self._n_most, TILE - 1) if is_short else self._n_most
            if is_short != self._is_short or start + n_tokens > n_most:
                return None
            if (
                n_tokens > TILE and start - self.n_used > LANES
            ):  # a batch of its own is quicker than computing so many filling rows
                return None
        self._is_short = is_short
        self.n_used = start + n_tokens
        return start

    @property
    def n_rows(self) -> int:
        return self.n_used if self._is_short else max(self.n_used, TILE)

    def _start(self, n_tokens: int) -> int:
        if n_tokens <= SHORT:
            return self.n_used
        start = -(-self.n_used // LANES) * LANES
        return start if start % TILE + n_tokens <= TILE else -(-start // TILE) * TILE
