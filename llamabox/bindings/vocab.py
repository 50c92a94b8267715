"""A model's vocabulary: text to tokens and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.ffi import Native
from llamabox.bindings.sampling.breakers import BreakerTables
from llamabox.bindings.sampling.remembered import RememberedTexts
from llamabox.errors import InvalidRequest, NotSupported

MAX_TEXT = 2**31 - 1

UNPACKED = 1 << 14
"""Tokens that become Python's at once. Other threads wait meanwhile: for millions, a tenth of a second."""

HANGUL = re.compile("[\uac00-\ud7a3]+")
"""Korean syllables, each of two or three letters."""


class Vocab:
    """Borrowed from a Model and valid as long as that is open. Every method may be called from any thread.

    Token ids that are arguments must lie in 0 … n_tokens - 1: libllama aborts the process on others, so the methods
    raise InvalidRequest instead. Special tokens that a model lacks are None.
    """

    def __init__(self, native: Native, handle: Any) -> None:
        self.native = native
        self.handle = handle
        self.n_tokens: int = native.lib.llama_vocab_n_tokens(handle)
        self.type: int = native.lib.llama_vocab_type(handle)
        self.breakers = BreakerTables(native, handle)
        self.bos = self._special("bos")
        self.eos = self._special("eos")
        self.eot = self._special("eot")
        self.nl = self._special("nl")
        self.sep = self._special("sep")
        self.pad = self._special("pad")
        self.fim_pre = self._special("fim_pre")
        self.fim_suf = self._special("fim_suf")
        self.fim_mid = self._special("fim_mid")
        self.fim_rep = self._special("fim_rep")
        self.fim_sep = self._special("fim_sep")
        wants_bos: bool = native.lib.llama_vocab_get_add_bos(handle)
        wants_eos: bool = native.lib.llama_vocab_get_add_eos(handle)
        self.add_bos = wants_bos and self.bos is not None
        self.add_eos = wants_eos and self.eos is not None
        self.wants_eos = wants_eos  # of a pair of texts SEP may stand in for it
        self.add_sep = bool(native.lib.llama_vocab_get_add_sep(handle)) and self.sep is not None
        # A file may want tokens added that it does not define: libllama aborts the process when it is asked to.
        is_wpm = self.type == native.lib.LLAMA_VOCAB_TYPE_WPM
        self._can_add_special = (
            self.add_bos == wants_bos
            and self.add_eos == wants_eos
            and not (is_wpm and (self.bos is None or self.sep is None))
        )

    def _special(self, name: str) -> int | None:
        token = getattr(self.native.lib, f"llama_vocab_{name}")(self.handle)
        return None if token < 0 else token

    def _require_text(self) -> None:
        """libllama aborts the process when a model without a vocabulary is asked about text."""
        if self.type == self.native.lib.LLAMA_VOCAB_TYPE_NONE:
            raise NotSupported("the model has no vocabulary: it takes and gives token ids only")

    def check(self, token: int) -> int:
        """The token, if the vocabulary has it. Raises InvalidRequest."""
        if not 0 <= token < self.n_tokens:
            raise InvalidRequest(f"token id {token} is not in the vocabulary (0 to {self.n_tokens - 1})")
        return token

    @cached_property
    def eog_tokens(self) -> tuple[int, ...]:
        """Every token that ends a generation, in ascending order."""
        is_eog = self.native.lib.llama_vocab_is_eog
        return tuple(token for token in range(self.n_tokens) if is_eog(self.handle, token))

    @cached_property
    def control_tokens(self) -> tuple[int, ...]:
        """Every token that only a special mark in a text becomes, in ascending order."""
        is_control = self.native.lib.llama_vocab_is_control
        return tuple(token for token in range(self.n_tokens) if is_control(self.handle, token))

    @cached_property
    def longest_piece(self) -> int:
        """Bytes of the longest token; a text of n bytes has at least n / longest_piece tokens."""
        native = self.native
        sizes = (
            native.lib.llama_token_to_piece(self.handle, token, native.ffi.NULL, 0, 0, True)
            for token in range(self.n_tokens)
        )
        return max(1, -int(min(sizes)))  # without a buffer the size comes back negative

    @cached_property
    def suppress_tokens(self) -> tuple[int, ...]:
        """Tokens that the model's author wants never sampled (tokenizer.ggml.suppress_tokens)."""
        if not self.native.has("llama_vocab_get_suppress_tokens"):
            return ()
        count = self.native.ffi.new("int32_t *")
        tokens = self.native.lib.llama_vocab_get_suppress_tokens(self.handle, count)
        return tuple(tokens[0 : count[0]]) if count[0] else ()

    def is_eog(self, token: int) -> bool:
        return bool(self.native.lib.llama_vocab_is_eog(self.handle, self.check(token)))

    def is_control(self, token: int) -> bool:
        return bool(self.native.lib.llama_vocab_is_control(self.handle, self.check(token)))

    def attr(self, token: int) -> int:
        """Bits of LLAMA_TOKEN_ATTR_*."""
        return int(self.native.lib.llama_vocab_get_attr(self.handle, self.check(token)))

    def text(self, token: int) -> str:
        """The token as it stands in the model file: `Ġthe` where `piece` gives ` the`."""
        return self.native.text(self.native.lib.llama_vocab_get_text(self.handle, self.check(token))) or ""

    def tokenize(self, text: str | bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of a text. Bytes need not be UTF-8; text with lone surrogates is an InvalidRequest.

        add_special: with BOS and EOS where the model wants them. parse_special: `<|im_end|>` in the text is the token.
        """
        ids = self.token_ids(text, add_special=add_special, parse_special=parse_special)
        found: list[int] = []
        for at in range(0, len(ids), UNPACKED):
            found += ids[at : at + UNPACKED].tolist()
        return found

    def token_ids(self, text: str | bytes, *, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        """What `tokenize` returns, as an array: Python's numbers take ten times the memory and the time."""
        self._require_text()
        add_special = add_special and self._can_add_special
        if isinstance(text, str) and not text.isascii() and self._halves_syllables:
            text = HANGUL.sub(lambda found: unicodedata.normalize("NFD", found[0]), text)
        data = text if isinstance(text, bytes) else encode(text)
        if len(data) > MAX_TEXT:
            raise InvalidRequest(f"a text of {len(data)} bytes is too long to tokenise")
        return self._tokenize(data, add_special, parse_special)

    @cached_property
    def remembered(self) -> RememberedTexts:
        """llama_tokenize with a memory, as a function in C."""
        return RememberedTexts(self.native)

    @cached_property
    def _halves_syllables(self) -> bool:
        """Whether libllama's WordPiece keeps only the first letter of a Hangul syllable, by its table of accents.

        BERT keeps all letters. They survive when the syllable is taken apart beforehand.
        """
        is_wpm = self.type == self.native.lib.LLAMA_VOCAB_TYPE_WPM
        ids = (self._tokenize(encode(text), False, False) for text in ("\uac01", "\u1100"))
        return is_wpm and len({tuple(found.tolist()) for found in ids}) == 1

    def _tokenize(self, data: bytes, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        ffi, tokenize = self.native.ffi, self.native.lib.llama_tokenize

        def write(tokens: NDArray[np.int32]) -> int:
            into = ffi.from_buffer("llama_token[]", tokens, require_writable=True)
            return int(tokenize(self.handle, data, len(data), into, len(tokens), add_special, parse_special))

        # cffi's own arrays are filled with zeros, under the interpreter's lock: of a long text that takes 0.1 s.
        tokens = np.empty(len(data) + 2, np.int32)
        count = write(tokens)
        if count < 0:  # some vocabularies give more tokens than bytes; the first call says how many
            if count == -(2**31):
                raise InvalidRequest("the text has more tokens than can be counted")
            tokens = np.empty(-count, np.int32)
            count = write(tokens)
        return tokens[:count]

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes a token stands for: possibly part of a character; empty for a special one unless asked for."""
        self._require_text()
        self.check(token)
        ffi, to_piece = self.native.ffi, self.native.lib.llama_token_to_piece
        size = 64
        buffer = ffi.new("char[]", size)
        length = to_piece(self.handle, token, buffer, size, 0, special)
        if length < 0:
            size = -length
            buffer = ffi.new("char[]", size)
            length = to_piece(self.handle, token, buffer, size, 0, special)
        return bytes(ffi.buffer(buffer, max(length, 0)))

    def detokenize(self, tokens: Sequence[int], *, remove_special: bool, unparse_special: bool) -> bytes:
        """The inverse of tokenize. May end inside a character, as the tokens do."""
        self._require_text()
        ffi, detokenize = self.native.ffi, self.native.lib.llama_detokenize
        array = ffi.new("llama_token[]", [self.check(token) for token in tokens])
        size = 16 * len(tokens) + 16
        while True:
            buffer = ffi.new("char[]", size)
            length = detokenize(self.handle, array, len(tokens), buffer, size, remove_special, unparse_special)
            if length >= 0:
                return bytes(ffi.buffer(buffer, length))
            size = -length


def encode(text: str) -> bytes:
    """UTF-8; what cannot be encoded (a lone surrogate, as broken JSON escapes give) is an InvalidRequest."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(
            f"the text has a lone surrogate (U+{ord(text[exc.start]):04X}) at index {exc.start}"
        ) from exc
