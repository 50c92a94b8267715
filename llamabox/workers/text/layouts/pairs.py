"""The prompt that asks a reranker how well a document answers a query (docs/api.md, Rerank).

    [BOS] query [EOS] [SEP] document [EOS]

Each special token stands where the model wants such a one; a model without EOS that wants it gets SEP. A model may
bring a template of its own instead, named "rerank": a text with {query} and {document} in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from llamabox.bindings.vocab import Vocab
from llamabox.errors import ContextExceeded

Pairing = Callable[[str], list[int]]
"""From a document to the tokens of its pair with one query."""

Pair = Callable[[str, int | None], list[int]]
"""A pair's tokens, with a document's first tokens alone where their number is limited."""

PLACES = re.compile(r"(\{query\}|\{document\})")


class PairFormat:
    """The layout for one model. Thread-safe, as tokenising is. A special token's name in a query is plain text."""

    def __init__(self, vocab: Vocab, template: str | None, *, n_ctx: int) -> None:
        """`n_ctx`: tokens that a whole pair may have. Whoever computes a longer one refuses it."""
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._template = None if template is None else list(self._split(template))

    def pairing(self, query: str, *, n_document: int | None = None, truncate: bool = False) -> Pairing:
        """A Pairing for any number of documents. The query is tokenised once where that is possible.

        At most `n_document` tokens of a document count, and with `truncate` no more than fit. Raises ContextExceeded
        where the query alone does not fit: each pair has a copy of it.
        """
        pair = self._plain(query) if self._template is None else partial(self._filled, query)
        n_tokens = len(pair("", 0))
        if n_tokens > self._n_ctx:
            raise ContextExceeded(
                f"Field 'query': the query is too large to process: it alone makes {n_tokens} tokens, "
                f"and at most {self._n_ctx} fit",
                n_prompt_tokens=n_tokens,
                n_ctx=self._n_ctx,
            )
        if truncate:
            return lambda document: self._fitting(pair, document, n_document)
        return lambda document: pair(document, n_document)

    def _fitting(self, pair: Pair, document: str, n_document: int | None) -> list[int]:
        """The pair with as much of the document's beginning as there is room for."""
        tokens = pair(document, n_document)
        n_over = len(tokens) - self._n_ctx
        n_most = len(self._text(document)[:n_document]) if n_over > 0 else 0
        while n_over > 0 and n_most:
            n_most = max(0, n_most - n_over)
            tokens = pair(document, n_most)
            n_over = len(tokens) - self._n_ctx
        return tokens

    def _plain(self, query: str) -> Pair:
        vocab = self._vocab
        end = vocab.eos if vocab.eos is not None else vocab.sep
        bos = [vocab.bos] if vocab.add_bos and vocab.bos is not None else []
        eos = [end] if vocab.wants_eos and end is not None else []
        sep = [vocab.sep] if vocab.add_sep and vocab.sep is not None else []
        head = [*bos, *self._text(query), *eos, *sep]
        return lambda document, n_most: [*head, *self._text(document)[:n_most], *eos]

    def _filled(self, query: str, document: str, n_most: int | None) -> list[int]:
        """The template's pair. Text between two special tokens is tokenised in one go: a word may span two places."""
        assert self._template is not None
        if n_most is not None and len(found := self._text(document)) > n_most:
            data = self._vocab.detokenize(found[:n_most], remove_special=False, unparse_special=False)
            document = data.decode("utf-8", "ignore")  # its last character may be cut in two
        filling = {"{query}": query, "{document}": document}
        tokens: list[int] = []
        for part in self._template:
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self._text("".join(filling.get(piece, piece) for piece in PLACES.split(part)))
        return tokens

    def _split(self, template: str) -> Iterator[str | int]:
        """The template's special tokens, and the texts between them."""
        specials = {text: token for token in self._vocab.control_tokens if (text := self._vocab.text(token))}
        pattern = "|".join(re.escape(text) for text in sorted(specials, key=len, reverse=True))
        for part in re.split(f"({pattern})", template) if pattern else [template]:
            if part:
                yield specials.get(part, part)

    def _text(self, text: str) -> list[int]:
        return self._vocab.tokenize(text, add_special=False, parse_special=False) if text else []
