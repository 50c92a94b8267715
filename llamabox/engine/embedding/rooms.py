"""Where passages stand in a batch, so that each gets the vector that it would get alone."""

from __future__ import annotations

from typing import Protocol

TILE = 64
"""GGML_FA_TILE_Q of ggml's CPU backend: rows, and keys, of a tile of its flash attention. It works in tiles on plain
floats only, and fewer rows go key by key instead."""

LANES = 16
"""Numbers that the widest CPUs sum side by side: within a tile sums come out the same at multiples of it only."""

SHORT = 24
"""Tokens up to which a passage is computed key by key. Measured with MiniLM on one core, passages a second, key by key
against in tiles: 471 and 156 of 5 tokens, 98 and 78 of 20, 56 and 78 of 31, 21 and 39 of 62."""


class Room(Protocol):
    """One batch while it is planned."""

    n_used: int  # rows

    def place(self, n_tokens: int) -> int | None:
        """The first row of a passage, which has it from now on; None where there is no room for it."""

    @property
    def n_rows(self) -> int:
        """Of the whole batch, with what fills it up."""


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
    """For ggml's attention without a KV memory on a CPU, whose two paths round differently.

    A passage's length alone decides which path it takes. In tiles it lies in one or begins with one, and what is
    skipped is filled up; key by key its place changes nothing.
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
            if n_tokens > TILE and start - self.n_used > LANES:  # a batch of its own is quicker than so much filling
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
