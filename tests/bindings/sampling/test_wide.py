"""Chains that choose among the whole vocabulary: each seed draws the token that it draws with libllama's own chain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Native
from llamabox.bindings.sampling.sampler import Mask, RowSampler
from llamabox.bindings.sampling.shortlist import ShortlistKind, Wide, wide
from tests.bindings.sampling.blank_rows import ROWS, blank_context
from tests.bindings.sampling.chains import Steps, chain, libllama_chain

BIAS = ("logit_bias", ((3, -np.inf), (5, 2.0), (1000, -1.5)))
BAN = ("logit_bias", ((3, -np.inf), (1000, -1.5)))
PENALTIES = ("penalties", 64, 1.3, 0.2, 0.1)
TEMP = ("temp_ext", 0.8, 0.0, 1.0)

CHAINS: dict[str, Steps] = {
    "all": (),
    "temp": (TEMP,),
    "hot": (("temp", 1.7),),
    "bias, temp": (BIAS, TEMP),
    "penalties, temp": (PENALTIES, TEMP),
    "sigma, temp": (("top_n_sigma", 2.0), TEMP),
    "min_p": (("min_p", 0.05, 0), TEMP),
    "min_p of some": (("min_p", 0.5, 300), TEMP),
    "temp, min_p": (TEMP, ("min_p", 0.02, 0)),
    "penalties, min_p": (BIAS, PENALTIES, ("min_p", 0.1, 0), TEMP),
    "top_p": (("top_p", 0.95, 0), TEMP),
    "half": (("top_p", 0.5, 0),),
    "none": (("top_p", 0.0, 0),),
    "nearly all": (("top_p", 0.9999, 0), TEMP),
    "top_p of some": (("top_p", 0.3, 700), TEMP),
    "temp, top_p": (TEMP, ("top_p", 0.9, 0)),
    "the default without top_k": (BIAS, ("top_p", 0.95, 0), ("min_p", 0.05, 0), TEMP),
    "xtc behind": (("top_p", 0.95, 0), ("xtc", 0.5, 0.1, 0, 5), TEMP),
    "penalties behind": (("top_p", 0.9, 0), PENALTIES, TEMP),
    "typical behind": (("top_p", 0.9, 0), ("typical", 0.8, 0)),
    "top_k": (("top_k", 40), ("top_p", 0.95, 0), TEMP),
    "top_k of one sort": (("top_k", 128), TEMP),
    "top_k of buckets": (("top_k", 129), TEMP),
    "top_k behind penalties": (PENALTIES, ("top_k", 40), TEMP),
    "top_k behind a ban": (BAN, ("top_k", 40), TEMP),
}


@pytest.fixture(scope="module", params=[49_152, 128_256])
def blank(
    request: pytest.FixtureRequest, native: Native, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    with blank_context(native, tmp_path_factory.mktemp("blank"), request.param) as context:
        yield context


@pytest.mark.parametrize("name", CHAINS)
def test_each_seed_draws_what_it_draws_with_libllama(blank: Context, name: str) -> None:
    """Two tokens of each kind of row, because random numbers and penalties go on."""
    lib, sampler = blank.native.lib, RowSampler(blank)
    n_seeds = 4 if blank.n_vocab < 100_000 else 1
    rng = np.random.default_rng(7)
    for kind, make in ROWS.items():
        blank.logits(0)[:] = make(rng, blank.n_vocab)
        ours = [chain(blank, (*CHAINS[name], ("dist", seed))) for seed in range(n_seeds)]
        theirs = [libllama_chain(blank, (*CHAINS[name], ("dist", seed))) for seed in range(n_seeds)]
        for _ in range(2):
            expected = [lib.llama_sampler_sample(oracle.handle, blank.handle, 0) for oracle in theirs]
            assert sampler.sample([0] * n_seeds, ours) == expected, kind
        for made in (*ours, *theirs):
            made.close()


@pytest.mark.parametrize("name", ["temp", "top_p", "half", "the default without top_k"])
@pytest.mark.parametrize("kind", ["peaked", "equal ones"])
def test_hundreds_of_seeds(blank: Context, name: str, kind: str) -> None:
    """Many enough for targets at the very edge of a token's share, and for equal logits at the cut."""
    lib = blank.native.lib
    n_seeds = 300 if blank.n_vocab < 100_000 else 30
    blank.logits(0)[:] = ROWS[kind](np.random.default_rng(11), blank.n_vocab)
    ours = [chain(blank, (*CHAINS[name], ("dist", seed))) for seed in range(n_seeds)]
    tokens = RowSampler(blank).sample([0] * n_seeds, ours)
    for seed, token in enumerate(tokens):
        with libllama_chain(blank, (*CHAINS[name], ("dist", seed))) as oracle:
            assert lib.llama_sampler_sample(oracle.handle, blank.handle, 0) == token
    assert len(set(tokens)) > 3


@pytest.mark.parametrize("name", CHAINS)
def test_a_mask_draws_from_what_it_lets_through(blank: Context, name: str) -> None:
    """Against a chain over nothing else: of candidates in their order, as libllama would be handed them."""
    rng = np.random.default_rng(3)
    sampler = RowSampler(blank)
    for kind in ("peaked", "equal ones") if blank.n_vocab < 100_000 else ("equal ones",):
        blank.logits(0)[:] = ROWS[kind](rng, blank.n_vocab)
        allowed = rng.random(blank.n_vocab) < 0.3
        mask: Mask = np.packbits(allowed, bitorder="little").view(np.uint32)
        ours = [chain(blank, (*CHAINS[name], ("dist", seed))) for seed in range(2)]
        tokens = sampler.sample([0] * 2, ours, [mask] * 2)
        for seed, token in enumerate(tokens):
            with libllama_chain(blank, (*CHAINS[name], ("dist", seed))) as oracle:
                assert token == drawn_of(blank, oracle.handle, np.flatnonzero(allowed)), kind


def drawn_of(context: Context, handle: object, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    ffi, lib = context.native.ffi, context.native.lib
    candidates = ffi.new("llama_token_data[]", len(ids))
    rows = np.frombuffer(ffi.buffer(candidates), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    rows["id"], rows["logit"] = ids, context.logits(0)[ids]
    array = ffi.new("llama_token_data_array *", {"data": candidates, "size": len(ids), "selected": -1})
    lib.llama_sampler_apply(handle, array)
    return int(array.data[array.selected].id)


def test_greedy_is_what_libllama_takes(blank: Context) -> None:
    lib = blank.native.lib
    for kind, make in ROWS.items():
        for seed in range(3):
            blank.logits(0)[:] = make(np.random.default_rng(seed), blank.n_vocab)
            with chain(blank, (("greedy",),)) as greedy:
                expected = lib.llama_sampler_sample(greedy.handle, blank.handle, 0)
                assert RowSampler(blank).sample([0], [greedy]) == [expected], kind


@pytest.mark.parametrize("kind", ["peaked", "equal ones", "flat"])
def test_equal_logits_in_a_shortlist_come_in_libllamas_order(blank: Context, kind: str) -> None:
    """Sixteen equal ones around the cut of top_k, where its sort decides which of them stay."""
    lib = blank.native.lib
    row = blank.logits(0)
    row[:] = ROWS[kind](np.random.default_rng(5), blank.n_vocab)
    row[np.argsort(-row)[30:46]] = np.float32(row.max() - 0.5)
    steps: Steps = (("top_k", 40), TEMP)
    ours = [chain(blank, (*steps, ("dist", seed))) for seed in range(100)]
    theirs = [libllama_chain(blank, (*steps, ("dist", seed))) for seed in range(100)]
    expected = [lib.llama_sampler_sample(oracle.handle, blank.handle, 0) for oracle in theirs]
    assert RowSampler(blank).sample([0] * 100, ours) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("dist", (1,))], Wide(ShortlistKind.DRAW, 0, 1)),
        ([("penalties", ()), ("temp", (0.5,)), ("dist", (1,))], Wide(ShortlistKind.DRAW, 1, 3, 0.5)),
        (
            [("temp_ext", (0.5, 0.0, 1.0)), ("top_p", (0.9, 2)), ("dist", (1,))],
            Wide(ShortlistKind.TOP_P, 0, 2, 0.5, 0.9, 2),
        ),
        ([("logit_bias", ()), ("min_p", (0.1, 0)), ("dist", (1,))], Wide(ShortlistKind.MIN_P, 1, 2, 1.0, 0.1)),
        (
            [("top_p", (0.9, 0)), ("logit_bias", ()), ("dist", (1,))],
            Wide(ShortlistKind.TOP_P, 0, 1, 1.0, 0.9, is_fair=False),
        ),
        ([("temp_ext", (0.5, 0.1, 1.0)), ("dist", (1,))], None),
        ([("temp", (0.0,)), ("dist", (1,))], None),
        ([("typical", (0.9, 0)), ("dist", (1,))], None),
        ([("top_p", (1.0, 0)), ("dist", (1,))], None),
        ([("min_p", (0.0, 0)), ("dist", (1,))], None),
        ([("xtc", (0.5, 0.1, 0, 1)), ("dist", (1,))], None),
        ([("penalties", ())], None),
        ([], None),
    ],
)  # fmt: skip
def test_what_is_worked_out_without_sorting(steps: list[tuple[str, tuple[object, ...]]], expected: Wide | None) -> None:
    assert wide(steps) == expected
