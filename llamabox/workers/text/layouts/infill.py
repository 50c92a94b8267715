"""The prompt of a completion in the middle, with pieces of other files (docs/api.md, Infill).

    REP "myproject\\n"  { SEP "name\\n" text }…  SEP "filename\\n"  [BOS]  PRE prefix prompt  SUF suffix  MID

Suffix first (`--spm-infill`): SUF suffix, then PRE prefix prompt. A model without SEP gets a line of text in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.vocab import Vocab
from llamabox.errors import NotSupported

PROJECT = "myproject\n"
CURRENT_FILE = "filename\n"
SNIPPET = "\n\n--- snippet ---\n\n"

Ids = NDArray[np.int32]
"""Tokens of a text: arrays, since texts may be megabytes of which little is taken."""

NOTHING: Ids = np.empty(0, np.int32)


class InfillFormat:
    """The layout for one model. Thread-safe, as tokenising is."""

    def __init__(self, vocab: Vocab, *, n_batch: int, n_ctx: int, suffix_first: bool) -> None:
        """`n_ctx` is a slot's.

        Prefix and suffix share `n_batch` tokens, 3 to 1, but at most three quarters of the context, so that room is
        left for the answer.
        """
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._n_window = min(n_batch, 3 * n_ctx // 4)
        self._suffix_first = suffix_first

    def tokens(
        self, prefix: str, suffix: str, extra: Sequence[tuple[str, str]], prompt: str, n_predict: int
    ) -> list[int]:
        """`extra` are pairs of file name and text. Raises NotSupported for a model without tokens for this.

        Cut to size: the end of the prefix, the beginning of the suffix, the end of the extra.
        """
        pre, suf, mid = self._markers()
        asked = self._tokenize(prompt).tolist()
        n_quarter = self._n_window // 4
        before = [pre, *_last(self._tokenize(prefix), 3 * n_quarter), *asked]
        after = [suf, *self._tokenize(suffix)[: max(0, n_quarter - (2 + len(asked)))].tolist()]
        bos = [self._vocab.bos] if self._vocab.add_bos and self._vocab.bos is not None else []
        middle = [*bos, *(after + before if self._suffix_first else before + after), mid]
        n_predict = max(0, n_predict)
        n_free = self._n_ctx - len(middle) - max(1, n_predict)
        n_extra = min(self._n_ctx - self._n_window - 2 * n_predict, n_free)
        return [*_last(self._extra(extra), n_extra), *middle]

    def _markers(self) -> tuple[int, int, int]:
        vocab = self._vocab
        named = {"prefix": vocab.fim_pre, "suffix": vocab.fim_suf, "middle": vocab.fim_mid}
        lacking = [f"{name} token is missing" for name, token in named.items() if token is None]
        if vocab.fim_pre is None or vocab.fim_suf is None or vocab.fim_mid is None:
            raise NotSupported(f"Infill is not supported by this model: {', '.join(lacking)}")
        return vocab.fim_pre, vocab.fim_suf, vocab.fim_mid

    def _extra(self, extra: Sequence[tuple[str, str]]) -> Ids:
        vocab = self._vocab
        pieces: list[Ids] = []
        if vocab.fim_rep is not None:
            pieces += [np.array([vocab.fim_rep], np.int32), self._tokenize(PROJECT)]
        for name, text in extra:
            if vocab.fim_sep is None:
                pieces.append(self._tokenize(SNIPPET))
            else:
                pieces += [np.array([vocab.fim_sep], np.int32), self._tokenize(name + "\n")]
            pieces.append(self._tokenize(text))
        if vocab.fim_sep is not None:
            pieces += [np.array([vocab.fim_sep], np.int32), self._tokenize(CURRENT_FILE)]
        return np.concatenate([NOTHING, *pieces])

    def _tokenize(self, text: str) -> Ids:
        return self._vocab.token_ids(text, add_special=False, parse_special=False)


def _last(tokens: Ids, n: int) -> list[int]:
    last: list[int] = tokens[max(0, len(tokens) - max(0, n)) :].tolist()
    return last
