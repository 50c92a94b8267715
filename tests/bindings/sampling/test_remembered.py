"""llama_tokenize with a memory gives what llama_tokenize gives, whether it remembers a text or not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from llamabox.bindings.sampling import remembered
from llamabox.bindings.sampling.remembered import RememberedTexts
from llamabox.bindings.vocab import Vocab

Ask = Callable[[Any, bytes, int, bool, bool], tuple[int, list[int]]]

PIECES = (
    "<function=",
    "name",
    ">\n",
    " ünïcödé",
    "漢字",
    "🙂",
    "\n\n",
    "  ",
    "7",
    '{"a": ',
    "<|im_end|>",
    "</s>",
    "'ll ",
)


def asking(vocab: Vocab, function: Any) -> Ask:
    """Calls a C function like llama_tokenize with room for so many tokens: what it returns, and what it wrote."""
    ffi = vocab.native.ffi

    def ask(text: bytes, n_most: int, add_special: bool, special: bool) -> tuple[int, list[int]]:
        into = ffi.new("llama_token[]", n_most)
        found = int(function(vocab.handle, text, len(text), into, n_most, add_special, special))
        return found, list(into)[: max(found, 0)]

    return ask


@pytest.fixture
def both(vocab: Vocab) -> tuple[Ask, Ask]:
    ffi, made = vocab.native.ffi, RememberedTexts(vocab.native)
    function = ffi.cast("int32_t(*)(void *, char *, int32_t, int32_t *, int32_t, bool, bool)", made.address)

    def ours(*asked: Any) -> Any:
        assert made.address
        return function(*asked)

    return asking(vocab, ours), asking(vocab, vocab.native.lib.llama_tokenize)


def test_it_writes_and_returns_the_same_each_time_and_with_any_room(both: tuple[Ask, Ask]) -> None:
    ours, oracle = both
    chance = random.Random(7)
    texts = ["".join(chance.choices(PIECES, k=chance.randrange(12))).encode() for _ in range(60)]
    texts += [b"", b"a" * (remembered.MAX_BYTES + 1), b"\xff\xfe", "漢".encode()[:2]]
    for text in (*texts, *texts):
        for n_most in (300, 1, 2, 300):
            for add_special in (False, True):
                for special in (False, True):
                    asked = text, n_most, add_special, special
                    assert ours(*asked) == oracle(*asked), asked


def test_more_texts_than_it_keeps_are_right_as_well(both: tuple[Ask, Ask], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, oracle = both
    monkeypatch.setattr(remembered, "MAX_KEPT", 5)
    for i in (*range(20), *range(20)):
        text = f"<parameter={i % 13}>".encode()
        assert ours(text, 30, False, False) == oracle(text, 30, False, False)


def test_where_no_function_can_be_made_it_is_llama_tokenize_itself(vocab: Vocab) -> None:
    class Forbidding:
        """cffi on a system without memory that is written and executed."""

        def __getattr__(self, name: str) -> Any:
            return getattr(vocab.native.ffi, name)

        def callback(self, *_: object) -> None:
            raise MemoryError

    class Borrowed:
        ffi, lib = Forbidding(), vocab.native.lib

    made = RememberedTexts(Borrowed())  # type: ignore[arg-type]
    ffi, lib = vocab.native.ffi, vocab.native.lib
    assert made.address == int(ffi.cast("intptr_t", ffi.addressof(lib, "llama_tokenize")))
