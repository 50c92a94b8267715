"""The file of a static lookup cache, from texts."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from llamabox.engine.drafting.lookup.cache_file import HEAD

BITS = 21
"""A token in a number of 64 bits that holds three of them."""

MAX_VOCAB = 1 << BITS
N_PENDING = 1 << 22
"""Numbers that wait to be counted together: 32 MiB."""


class Builder:
    """Counts which token followed each 2-gram, over texts that come piece by piece."""

    def __init__(self) -> None:
        self._last: list[int] = []  # the end of the text so far
        self._pending: list[NDArray[np.int64]] = []
        self._n_pending = 0
        self._triples = np.empty(0, dtype=np.int64)  # in order, each once
        self._counts = np.empty(0, dtype=np.int64)

    def add(self, tokens: Seq[int]) -> None:
        """Go on with the text; ids are below MAX_VOCAB."""
        text = np.array([*self._last, *tokens], dtype=np.int64)
        self._last = text[-2:].tolist()
        if len(text) < 3:
            return
        self._pending.append(text[:-2] << (2 * BITS) | text[1:-1] << BITS | text[2:])
        self._n_pending += len(text) - 2
        if self._n_pending > N_PENDING:
            self._count()

    def end_text(self) -> None:
        """What comes next is another text."""
        self._last = []

    @property
    def n_grams(self) -> int:
        """2-grams so far."""
        self._count()
        return len(np.unique(self._triples >> BITS))

    def file(self) -> bytes:
        """All of it in the format of lookup caches."""
        self._count()
        grams, starts, sizes = np.unique(self._triples >> BITS, return_index=True, return_counts=True)
        heads = np.arange(len(grams)) * HEAD + 2 * starts
        words = np.empty(len(grams) * HEAD + 2 * len(self._triples), dtype="<i4")
        words[heads] = grams >> BITS
        words[heads + 1] = grams & (MAX_VOCAB - 1)
        words[heads + 2] = words[heads + 3] = -1
        words[heads + 4] = sizes
        places = np.repeat(heads + HEAD - 2 * starts, sizes) + 2 * np.arange(len(self._triples))
        words[places] = self._triples & (MAX_VOCAB - 1)
        words[places + 1] = np.minimum(self._counts, 2**31 - 1)
        return words.tobytes()

    def _count(self) -> None:
        """Count what is pending, and add it to what was counted."""
        if not self._pending:
            return
        fresh, n_fresh = np.unique(np.concatenate(self._pending), return_counts=True)
        both = np.concatenate((self._triples, fresh))
        self._triples, places = np.unique(both, return_inverse=True)
        counts = np.zeros(len(self._triples), dtype=np.int64)
        np.add.at(counts, places, np.concatenate((self._counts, n_fresh)))
        self._counts = counts
        self._pending, self._n_pending = [], 0
