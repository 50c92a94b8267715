"""llama_tokenize for llguidance, with a memory for short texts."""

from __future__ import annotations

from typing import Any

from llamabox.bindings.ffi import Native

MAX_BYTES = 256
"""Of a text that is remembered: names and punctuation that a grammar forces, with the token before them."""

MAX_KEPT = 4096
"""Texts; then all are forgotten. They take a megabyte or two."""

_TOKENIZE = "int32_t(void *, char *, int32_t, int32_t *, int32_t, bool, bool)"


class RememberedTexts:
    """A function in C that does as llama_tokenize does, for one vocabulary. Any thread may call it.

    libllama takes some 40 µs for a text of one character, since it compiles a vocabulary's patterns for each. What a
    grammar forces is the same few texts again and again, and the engine's thread waits for their tokens.
    """

    def __init__(self, native: Native) -> None:
        ffi, ask = native.ffi, native.lib.llama_tokenize
        kept: dict[tuple[bytes, bool], bytes] = {}
        size: int = ffi.sizeof("llama_token")

        def tokenize(vocab: Any, text: Any, n: int, into: Any, n_most: int, add_special: bool, special: bool) -> int:
            if add_special or n > MAX_BYTES:
                return int(ask(vocab, text, n, into, n_most, add_special, special))
            key = bytes(ffi.buffer(text, n)), special
            tokens = kept.get(key)
            if tokens is None:
                found = int(ask(vocab, text, n, into, n_most, add_special, special))
                if found >= 0:
                    if len(kept) >= MAX_KEPT:
                        kept.clear()
                    kept[key] = bytes(ffi.buffer(into, found * size))
                return found
            n_tokens = len(tokens) // size
            if n_tokens > n_most:
                return -n_tokens
            ffi.memmove(into, tokens, len(tokens))
            return n_tokens

        try:
            self._function = ffi.callback(_TOKENIZE, tokenize)
        except MemoryError:  # some systems forbid memory that is written and then executed: then without a memory
            self._function = ffi.addressof(native.lib, "llama_tokenize")
        self.address = int(ffi.cast("intptr_t", self._function))
        """Of the function; valid as long as this object is there."""
