"""Text to tokens and back, losing nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llamabox.bindings.vocab import Vocab
from llamabox.errors import InvalidRequest

TEXTS = ["", "Hello, world", "日本語のテキスト", "naïve café", "👩‍👩‍👧‍👦 family 🎉", "a\0b\0", "\n\n\t  \n", "x" * 5000]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(vocab: Vocab, text: str) -> None:
    tokens = vocab.tokenize(text, add_special=False, parse_special=False)
    assert vocab.detokenize(tokens, remove_special=False, unparse_special=True) == text.encode()
    assert b"".join(vocab.piece(token, special=True) for token in tokens) == text.encode()


def round_trip(vocab: Vocab, text: str) -> bytes:
    tokens = vocab.tokenize(text, add_special=False, parse_special=False)
    return b"".join(vocab.piece(token, special=True) for token in tokens)


# SmolLM2's vocabulary lacks some bytes: those of a few control characters, and the lead byte of U+40000 and beyond.
@given(text=st.text(st.characters(max_codepoint=0x3FFFF, exclude_categories=("Cs", "Cc"))))
@settings(max_examples=200, deadline=None)
def test_a_text_survives_when_each_of_its_characters_does(vocab: Vocab, text: str) -> None:
    assume(all(round_trip(vocab, character) == character.encode() for character in text))
    assert round_trip(vocab, text) == text.encode()


def test_special_text_is_a_token_only_when_parsed(vocab: Vocab) -> None:
    parsed = vocab.tokenize("<|im_end|>", add_special=False, parse_special=True)
    plain = vocab.tokenize("<|im_end|>", add_special=False, parse_special=False)
    assert parsed == [vocab.eos]
    assert len(plain) > 1
    assert vocab.piece(parsed[0], special=True) == b"<|im_end|>"
    assert vocab.piece(parsed[0], special=False) == b""
    assert vocab.is_control(parsed[0])


def test_the_tokens_that_end_a_generation(vocab: Vocab) -> None:
    assert vocab.eos in vocab.eog_tokens
    assert all(vocab.is_eog(token) for token in vocab.eog_tokens)
    assert not vocab.is_eog(vocab.tokenize("hello", add_special=False, parse_special=False)[0])


def test_bytes_that_are_not_utf8_are_taken(vocab: Vocab) -> None:
    assert vocab.tokenize(b"\xf0\x9f\x8e", add_special=False, parse_special=False)


def test_a_lone_surrogate_is_the_client_s_fault(vocab: Vocab) -> None:
    with pytest.raises(InvalidRequest, match=r"surrogate.*index 2"):
        vocab.tokenize("ab\ud800", add_special=False, parse_special=False)


@pytest.mark.parametrize("token", [-1, 2**31 - 1, 10**12])
def test_ids_outside_the_vocabulary_never_reach_c(vocab: Vocab, token: int) -> None:
    for call in (vocab.is_eog, vocab.is_control, vocab.attr, vocab.text):
        with pytest.raises(InvalidRequest, match="not in the vocabulary"):
            call(token)
    with pytest.raises(InvalidRequest):
        vocab.piece(token, special=True)
    with pytest.raises(InvalidRequest):
        vocab.detokenize([token], remove_special=False, unparse_special=False)


def test_threads_tokenise_at_once(vocab: Vocab) -> None:
    text = "The quick brown fox 🦊 jumps. " * 200
    expected = vocab.tokenize(text, add_special=True, parse_special=True)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: vocab.tokenize(text, add_special=True, parse_special=True), range(16)))
    assert results == [expected] * 16
