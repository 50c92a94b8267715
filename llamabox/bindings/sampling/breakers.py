"""The sequence breakers of the sampler "dry", looked up in a vocabulary once and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any

from llamabox.bindings.ffi import Native

MAX_KEPT = 16
"""Sets of breakers. One takes a few bytes for each token of the vocabulary."""


class BreakerTables:
    """The breakers of one vocabulary, whose handle they must not outlive. Any thread may call it."""

    def __init__(self, native: Native, vocab: Any) -> None:
        self._native = native
        self._vocab = vocab
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[bytes, ...], Any] = OrderedDict()

    def knows(self, words: tuple[bytes, ...]) -> bool:
        """Whether `table` has them at hand; else each takes milliseconds, and the very first a part of a second."""
        return words in self._kept

    def table(self, words: tuple[bytes, ...]) -> Any:
        """A `struct lb_breakers *`, valid while somebody holds it; samplers made of it hold a share of their own."""
        with self._lock:
            if words in self._kept:
                self._kept.move_to_end(words)
                return self._kept[words]
        table = self._make(words)
        with self._lock:
            self._kept[words] = table
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return table

    @cached_property
    def _texts(self) -> Any:
        lib = self._native.lib
        return self._owned(lib.lb_texts_make(self._vocab), lib.lb_texts_free)

    def _make(self, words: tuple[bytes, ...]) -> Any:
        ffi, lib = self._native.ffi, self._native.lib
        texts = [ffi.new("char[]", word) for word in dict.fromkeys(words)]
        array = ffi.new("const char *[]", texts)
        return self._owned(lib.lb_breakers_make(self._vocab, self._texts, array, len(texts)), lib.lb_breakers_free)

    def _owned(self, made: Any, free: Any) -> Any:
        if made == self._native.ffi.NULL:
            raise MemoryError("no memory for the sequence breakers of dry")
        return self._native.ffi.gc(made, free)
