"""The prompt of a completion in the middle, with pieces of other files (docs/api.md, Infill).

    REP "myproject\\n"  { SEP "name\\n" text }…  SEP "filename\\n"  [BOS]  PRE prefix prompt  SUF suffix  MID

Suffix first (`--spm-infill`): SUF suffix, then PRE prefix prompt. A model without SEP gets a line of text in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamabox.bindings.vocab import Vocab
from llamabox.errors import NotSupported

PROJECT = "myproject\n"
CURRENT_FILE = "filename\n"
SNIPPET = "\n\n--- snippet ---\n\n"


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
        asked = self._tokenize(prompt)
        n_quarter = self._n_window // 4
        before = [pre, *_last(self._tokenize(prefix), 3 * n_quarter), *asked]
        after = [suf, *self._tokenize(suffix)[: max(0, n_quarter - (2 + len(asked)))]]
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

    def _extra(self, extra: Sequence[tuple[str, str]]) -> list[int]:
        vocab = self._vocab
        tokens: list[int] = []
        if vocab.fim_rep is not None:
            tokens += [vocab.fim_rep, *self._tokenize(PROJECT)]
        for name, text in extra:
            if vocab.fim_sep is None:
                tokens += self._tokenize(SNIPPET)
            else:
                tokens += [vocab.fim_sep, *self._tokenize(name + "\n")]
            tokens += self._tokenize(text)
        if vocab.fim_sep is not None:
            tokens += [vocab.fim_sep, *self._tokenize(CURRENT_FILE)]
        return tokens

    def _tokenize(self, text: str) -> list[int]:
        return self._vocab.tokenize(text, add_special=False, parse_special=False)


def _last(tokens: list[int], n: int) -> list[int]:
    return tokens[max(0, len(tokens) - max(0, n)) :]
