"""The infill prompt's layout and budgets, over a vocabulary in which each character is a token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamabox.errors import NotSupported
from llamabox.workers.text.layouts.infill import InfillFormat

PRE, SUF, MID, REP, SEP, BOS = 1001, 1002, 1003, 1004, 1005, 1006
NAMES = {PRE: "<PRE>", SUF: "<SUF>", MID: "<MID>", REP: "<REP>", SEP: "<SEP>", BOS: "<BOS>"}


@dataclass
class LetterVocab:
    fim_pre: int | None = PRE
    fim_suf: int | None = SUF
    fim_mid: int | None = MID
    fim_rep: int | None = None
    fim_sep: int | None = None
    bos: int | None = BOS
    add_bos: bool = False

    def token_ids(self, text: str, *, add_special: bool, parse_special: bool) -> NDArray[np.int32]:
        assert (add_special, parse_special) == (False, False), "markers in a user's file are text"
        return np.array([ord(letter) for letter in text], np.int32)


def shown(
    vocab: LetterVocab | None = None,
    *,
    prefix: str = "ab",
    suffix: str = "yz",
    extra: tuple[tuple[str, str], ...] = (),
    prompt: str = "",
    n_predict: int = -1,
    n_batch: int = 64,
    n_ctx: int = 256,
    suffix_first: bool = False,
) -> str:
    made = InfillFormat(vocab or LetterVocab(), n_batch=n_batch, n_ctx=n_ctx, suffix_first=suffix_first)  # type: ignore[arg-type]
    tokens = made.tokens(prefix, suffix, extra, prompt, n_predict)
    return "".join(NAMES.get(token) or chr(token) for token in tokens)


BOTH = (("one.py", "1"), ("two.py", "22"))


def test_layouts() -> None:
    assert shown() == "<PRE>ab<SUF>yz<MID>"
    assert shown(prompt="cd") == "<PRE>abcd<SUF>yz<MID>"
    assert shown(prompt="cd", suffix_first=True) == "<SUF>yz<PRE>abcd<MID>"
    assert shown(prefix="", suffix="") == "<PRE><SUF><MID>"
    assert shown(prefix="<PRE>") == "<PRE><PRE><SUF>yz<MID>"


def test_bos_stands_after_the_extra_and_before_the_first_marker() -> None:
    vocab = LetterVocab(add_bos=True, fim_rep=REP)
    assert shown(vocab) == "<REP>myproject\n<BOS><PRE>ab<SUF>yz<MID>"
    assert shown(vocab, suffix_first=True) == "<REP>myproject\n<BOS><SUF>yz<PRE>ab<MID>"


def test_other_files() -> None:
    separated = LetterVocab(fim_rep=REP, fim_sep=SEP)
    assert shown(separated, extra=BOTH) == (
        "<REP>myproject\n<SEP>one.py\n1<SEP>two.py\n22<SEP>filename\n<PRE>ab<SUF>yz<MID>"
    )
    assert shown(LetterVocab(fim_sep=SEP)) == "<SEP>filename\n<PRE>ab<SUF>yz<MID>"
    assert shown(extra=BOTH) == "\n\n--- snippet ---\n\n1\n\n--- snippet ---\n\n22<PRE>ab<SUF>yz<MID>"


@pytest.mark.parametrize("prompt", ["", "pq", "p" * 20])
def test_the_end_of_the_prefix_and_the_beginning_of_the_suffix_are_kept(prompt: str) -> None:
    """docs/api.md, Infill: 3 * (n_batch / 4), and n_batch / 4 - (2 + the prompt's)."""
    before, after = "".join(map(chr, range(300, 400))), "".join(map(chr, range(500, 600)))
    n_after = max(0, 16 - (2 + len(prompt)))
    expected = f"<PRE>{before[-48:]}{prompt}<SUF>{after[:n_after]}<MID>"
    assert shown(prefix=before, suffix=after, prompt=prompt, n_batch=67) == expected


@pytest.mark.parametrize(("n_predict", "n_extra"), [(20, 256 - 64 - 40), (95, 2), (96, 0), (1000, 0), (-1, 192)])
def test_the_end_of_the_extra_is_kept(n_predict: int, n_extra: int) -> None:
    """docs/api.md, Infill: n_ctx - n_batch - 2 * n_predict."""
    text = "".join(map(chr, range(300, 800)))
    assert shown(extra=(("f", text),), n_predict=n_predict) == text[500 - n_extra :] + "<PRE>ab<SUF>yz<MID>"


@given(
    sizes=st.tuples(*[st.integers(0, 400)] * 3),
    n_prompt=st.integers(0, 4),
    n_predict=st.integers(-2, 300),
    n_batch=st.integers(1, 600),
    n_ctx=st.integers(64, 512),
    add_bos=st.booleans(),
)
def test_the_prompt_fits_the_slot_and_leaves_room_for_an_answer(
    sizes: tuple[int, ...], n_prompt: int, n_predict: int, n_batch: int, n_ctx: int, add_bos: bool
) -> None:
    """However large the files are, and also where a batch is larger than the slot's context."""
    vocab = LetterVocab(add_bos=add_bos)
    made = InfillFormat(vocab, n_batch=n_batch, n_ctx=n_ctx, suffix_first=False)  # type: ignore[arg-type]
    prefix, suffix, extra = ("x" * size for size in sizes)
    tokens = made.tokens(prefix, suffix, [("f", extra)], "p" * n_prompt, n_predict)
    assert len(tokens) < n_ctx
    if 0 < n_predict <= n_ctx // 8:
        assert len(tokens) + n_predict <= n_ctx


@pytest.mark.parametrize(
    ("vocab", "missing"),
    [
        (LetterVocab(fim_pre=None), "prefix token is missing"),
        (LetterVocab(fim_suf=None, fim_mid=None), "suffix token is missing, middle token is missing"),
    ],
)
def test_a_model_without_the_markers_cannot(vocab: LetterVocab, missing: str) -> None:
    with pytest.raises(NotSupported, match=f"^Infill is not supported by this model: {missing}$"):
        shown(vocab)
