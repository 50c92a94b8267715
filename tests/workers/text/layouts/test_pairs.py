"""How query and document become one prompt, over a vocabulary in which each character is a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from llamabox.errors import ContextExceeded
from llamabox.workers.text.layouts.pairs import PairFormat

BOS, EOS, SEP, START, END = 1001, 1002, 1003, 1004, 1005
NAMES = {BOS: "<BOS>", EOS: "<EOS>", SEP: "<SEP>", START: "<|x|>", END: "<|x|>|"}


@dataclass
class LetterVocab:
    bos: int | None = BOS
    eos: int | None = EOS
    sep: int | None = SEP
    add_bos: bool = True
    wants_eos: bool = True
    add_sep: bool = True
    control_tokens: tuple[int, ...] = tuple(NAMES)
    n_calls: int = 0

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        assert (add_special, parse_special) == (False, False), "special tokens in a user's text are text"
        self.n_calls += 1
        return [ord(letter) for letter in text]

    def detokenize(self, tokens: list[int], *, remove_special: bool, unparse_special: bool) -> bytes:
        return "".join(map(chr, tokens)).encode()

    def text(self, token: int) -> str:
        return NAMES[token]


def shown(
    vocab: LetterVocab,
    query: str = "q",
    document: str = "d",
    template: str | None = None,
    n_ctx: int = 64,
    **limits: Any,
) -> str:
    tokens = PairFormat(vocab, template, n_ctx=n_ctx).pairing(query, **limits)(document)  # type: ignore[arg-type]
    return "".join(f"[{NAMES[token]}]" if token in NAMES else chr(token) for token in tokens)


@pytest.mark.parametrize(
    ("vocab", "pair"),
    [
        (LetterVocab(), "[<BOS>]q[<EOS>][<SEP>]d[<EOS>]"),
        (LetterVocab(wants_eos=False), "[<BOS>]q[<SEP>]d"),  # BERT
        (LetterVocab(add_sep=False), "[<BOS>]q[<EOS>]d[<EOS>]"),
        (LetterVocab(eos=None, add_sep=False), "[<BOS>]q[<SEP>]d[<SEP>]"),
        (LetterVocab(eos=None, sep=None, add_sep=False), "[<BOS>]qd"),
        (LetterVocab(add_bos=False, wants_eos=False, add_sep=False), "qd"),
        (LetterVocab(bos=None, eos=None, sep=None), "qd"),
    ],
)
def test_each_special_token_stands_where_the_model_wants_one(vocab: LetterVocab, pair: str) -> None:
    assert shown(vocab) == pair


def test_empty_texts_leave_the_frame() -> None:
    assert shown(LetterVocab(), "", "") == "[<BOS>][<EOS>][<SEP>][<EOS>]"


def test_a_query_is_tokenised_once_for_all_documents() -> None:
    vocab = LetterVocab()
    pairing = PairFormat(vocab, None, n_ctx=64).pairing("q")  # type: ignore[arg-type]
    for document in "abc":
        pairing(document)
    assert vocab.n_calls == 4


def test_a_template_takes_the_place_of_the_frame() -> None:
    template = "<|x|>Q: {query}\nD: {document}<|x|>|{query}"
    assert shown(LetterVocab(), "why", "so", template) == "[<|x|>]Q: why\nD: so[<|x|>|]why"


def test_what_looks_special_in_a_text_is_text() -> None:
    assert shown(LetterVocab(), "<SEP>", "{query}<|x|>", "<|x|>{query}{document}") == "[<|x|>]<SEP>{query}<|x|>"
    assert shown(LetterVocab(), "<SEP>", "<EOS>") == "[<BOS>]<SEP>[<EOS>][<SEP>]<EOS>[<EOS>]"


def test_text_between_two_special_tokens_is_tokenised_in_one_go() -> None:
    vocab = LetterVocab()
    pairing = PairFormat(vocab, "<|x|>a {query} b {document} c<|x|>d", n_ctx=64).pairing("q")  # type: ignore[arg-type]
    vocab.n_calls = 0
    pairing("d")
    assert vocab.n_calls == 2


@pytest.mark.parametrize("template", [None, "{query}<|x|>{document}"])
def test_a_query_that_leaves_no_room_is_refused_before_any_document_is_looked_at(template: str | None) -> None:
    made = PairFormat(LetterVocab(), template, n_ctx=64)  # type: ignore[arg-type]
    n_frame = len(made.pairing("")(""))
    made.pairing("q" * (64 - n_frame))
    with pytest.raises(ContextExceeded, match="query") as caught:
        made.pairing("q" * (65 - n_frame))
    assert caught.value.details == {"n_prompt_tokens": 65, "n_ctx": 64}


def test_a_model_without_special_tokens_may_have_a_template() -> None:
    assert shown(LetterVocab(control_tokens=()), template="{document}|{query}") == "d|q"


def test_a_document_is_cut_to_what_is_asked_for_or_to_what_fits() -> None:
    bert = LetterVocab(wants_eos=False)
    assert shown(bert, "q", "abcdef", n_document=4) == "[<BOS>]q[<SEP>]abcd"
    assert shown(bert, "q", "abcdef", n_document=9) == "[<BOS>]q[<SEP>]abcdef"
    assert shown(bert, "q", "abcdef", n_ctx=5, truncate=True) == "[<BOS>]q[<SEP>]ab"
    assert shown(bert, "q", "abcdef", n_ctx=5, truncate=True, n_document=1) == "[<BOS>]q[<SEP>]a"
    assert shown(bert, "qq", "abcdef", n_ctx=4, truncate=True) == "[<BOS>]qq[<SEP>]"
    assert shown(LetterVocab(), "q", "abcdef", n_ctx=7, truncate=True) == "[<BOS>]q[<EOS>][<SEP>]ab[<EOS>]"
    assert shown(bert, "q", "abcdef", "{document}<|x|>{query}", n_ctx=5, truncate=True) == "abc[<|x|>]q"
    assert shown(bert, "q", "abcdef", "{document}<|x|>{query}", n_document=2) == "ab[<|x|>]q"
    assert shown(bert, "q", "abcdef", n_ctx=5) == "[<BOS>]q[<SEP>]abcdef", "whoever computes it refuses it"
