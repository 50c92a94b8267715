"""One native call for all rows gives what libllama's own sampling gives."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context
from llamabox.bindings.sampling.sampler import BAD_ROW, Mask, RowSampler, SamplerChain
from llamabox.errors import InvalidRequest
from tests.bindings.sampling.chains import Steps, chain, libllama_chain

CHAINS: dict[str, Steps] = {
    "dist": (("dist", 1),),
    "temperature": (("penalties", 64, 1.1, 0.0, 0.0), ("temp", 0.7), ("dist", 4)),
    "top_p": (("top_p", 0.9, 0), ("min_p", 0.05, 0), ("temp", 0.8), ("dist", 21)),
    "min_p": (("logit_bias", ((28, -np.inf), (504, 1.0))), ("min_p", 0.05, 0), ("temp", 0.8), ("dist", 22)),
    "usual": (("top_k", 40), ("top_p", 0.95, 0), ("min_p", 0.05, 0), ("temp_ext", 0.8, 0.0, 1.0), ("dist", 42)),
    "penalties": (("penalties", 64, 1.3, 0.2, 0.1), ("top_k", 40), ("temp", 0.9), ("dist", 7)),
    "dry": (("dry", 0.8, 1.75, 2, 64, ("\n", ":", '"')), ("top_k", 20), ("dist", 3)),
    "typical": (("typical", 0.9, 0), ("temp", 1.1), ("dist", 11)),
    "xtc": (("top_k", 40), ("xtc", 0.5, 0.1, 0, 5), ("dist", 5)),
    "sigma": (("top_n_sigma", 1.5), ("temp", 1.5), ("dist", 9)),
    "dynatemp": (("top_k", 50), ("temp_ext", 0.8, 0.5, 1.2), ("dist", 2)),
    "mirostat": (("temp", 0.8), ("mirostat", 4, 5.0, 0.1, 100)),
    "mirostat 2": (("temp", 0.8), ("mirostat_v2", 4, 5.0, 0.1)),
    "adaptive": (("min_p", 0.05, 1), ("adaptive_p", 0.5, 0.9, 6)),
    "newlines": (("penalties", 64, 1.3, 0.2, 0.1, False), ("top_k", 40), ("dist", 7)),
    "infill": (("top_k", 40), ("infill",), ("dist", 13)),
    "banned": (
        ("logit_bias", ((28, -np.inf), (504, -2.0))),
        ("penalties", 9, 1.1, 0.0, 0.5),
        ("top_k", 7),
        ("dist", 8),
    ),
    "banned greedy": (("logit_bias", ((28, -np.inf), (504, -np.inf), (30, -1.0))), ("greedy",)),
    "bias": (("logit_bias", ((28, 4.0), (504, -np.inf))), ("top_k", 40), ("dist", 8)),
}


@pytest.fixture
def rows(context: Context) -> list[int]:
    """Eight rows of logits after various texts."""
    batch = NativeBatch(context.native, context.n_batch)
    tokens = context.model.vocab.tokenize(
        "One two three four: the cat sat on the", add_special=True, parse_special=True
    )
    batch.extend(tokens, 0, 0)
    wanted = list(range(batch.n_tokens - 8, batch.n_tokens))
    batch.logits[wanted] = 1
    context.decode(batch)
    return wanted


def test_every_chain_equals_libllama_over_200_steps(context: Context) -> None:
    """Both sample the same logits with chains made alike; the tokens go on in one batch, so histories matter."""
    ours = [chain(context, steps) for steps in CHAINS.values()]
    theirs = [libllama_chain(context, steps) for steps in CHAINS.values()]
    sampler, lib = RowSampler(context), context.native.lib
    batch = NativeBatch(context.native, context.n_batch)
    start = context.model.vocab.tokenize("Once upon a time", add_special=True, parse_special=True)
    row = batch.extend(start, 0, 0)[-1]
    batch.logits[row] = 1
    context.decode(batch)
    pos, seen = len(start), set()
    for _ in range(200):
        tokens = sampler.sample([row] * len(ours), ours)
        assert tokens == [lib.llama_sampler_sample(other.handle, context.handle, row) for other in theirs]
        seen.update(tokens)
        batch.clear()
        row = batch.add(tokens[pos % len(tokens)], pos, 0, wants_logits=True)
        context.decode(batch)
        pos += 1
    assert len(seen) > 50
    for made in (*ours, *theirs):
        made.close()


def test_many_rows_at_once_equal_one_by_one(context: Context, rows: list[int]) -> None:
    steps = CHAINS["usual"]
    sampler = RowSampler(context)
    together = sampler.sample(rows, [chain(context, (*steps[:-1], ("dist", seed))) for seed in range(8)])
    alone = [sampler.sample([row], [chain(context, (*steps[:-1], ("dist", seed)))])[0] for seed, row in enumerate(rows)]
    assert together == alone
    many = sampler.sample(rows * 10, [chain(context, (("greedy",),)) for _ in range(80)])
    assert many == many[:8] * 10


def test_greedy_is_argmax_and_the_lowest_id_of_equals(context: Context, rows: list[int]) -> None:
    sampler = RowSampler(context)
    greedy = chain(context, (("greedy",),))
    assert greedy.n_best == 1
    for row in rows:
        logits = context.logits(row)
        top = int(logits.argmax())
        assert sampler.sample([row], [greedy]) == [top]
        logits[[top, 100, 7]] = 1000.0
        assert sampler.sample([row], [greedy]) == [min(top, 7)]
        assert context.native.lib.llama_sampler_sample(greedy.handle, context.handle, row) == min(top, 7)


def test_a_short_row_and_a_row_with_few_choices(context: Context, rows: list[int]) -> None:
    """The shortlist neither drops a possible token nor adds an impossible one."""
    steps: Steps = (("logit_bias", ((3, -np.inf),)), ("top_k", 5), ("dist", 1))
    logits = context.logits(rows[0])
    logits[:] = -np.inf
    logits[[3, context.n_vocab - 1]] = 9.0, 1.0
    assert chain(context, steps).n_best == 6
    assert RowSampler(context).sample([rows[0]], [chain(context, steps)]) == [context.n_vocab - 1]
    logits[:] = -np.inf
    assert RowSampler(context).sample([rows[0]], [chain(context, steps)]) == [BAD_ROW]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["greedy", *CHAINS])
def test_a_row_with_nan_or_infinity_gives_no_token(context: Context, rows: list[int], name: str, poison: float) -> None:
    """One number, then all of them. The other rows of the call get theirs."""
    steps = CHAINS.get(name, (("greedy",),))
    sampler = RowSampler(context)
    for where in (5, slice(None)):
        context.logits(rows[0])[where] = poison
        tokens = sampler.sample(rows[:2], [chain(context, steps), chain(context, steps)])
        assert tokens[0] == BAD_ROW
        assert 0 <= tokens[1] < context.n_vocab


@pytest.mark.parametrize("name", CHAINS)
def test_a_row_with_one_possible_token_gives_it(context: Context, rows: list[int], name: str) -> None:
    logits = context.logits(rows[0])
    logits[:] = -np.inf
    logits[123] = 1.0
    assert RowSampler(context).sample(rows[:1], [chain(context, CHAINS[name])]) == [123]


@pytest.mark.parametrize("name", ["greedy", *CHAINS])
def test_a_row_with_nothing_possible_stays_inside_the_vocabulary(context: Context, rows: list[int], name: str) -> None:
    context.logits(rows[0])[:] = -np.inf
    [token] = RowSampler(context).sample(rows[:1], [chain(context, CHAINS.get(name, (("greedy",),)))])
    assert token == BAD_ROW or 0 <= token < context.n_vocab


def test_a_banned_token_never_comes(context: Context, rows: list[int]) -> None:
    top = int(context.logits(rows[0]).argmax())
    [token] = RowSampler(context).sample(rows[:1], [chain(context, (("logit_bias", ((top, -np.inf),)), ("greedy",)))])
    assert token != top


def test_a_token_outside_the_vocabulary_cannot_be_biased(context: Context) -> None:
    for token in (-1, context.n_vocab):
        with pytest.raises(InvalidRequest):
            chain(context, (("logit_bias", ((token, 1.0),)),))


def test_a_clone_goes_its_own_way_from_the_same_state(context: Context, rows: list[int]) -> None:
    sampler = RowSampler(context)
    first = chain(context, CHAINS["penalties"])
    sampler.sample(rows[:1], [first])
    second = first.clone()
    assert sampler.sample(rows[1:2], [first]) == sampler.sample(rows[1:2], [second])


def test_reset_starts_over(context: Context, rows: list[int]) -> None:
    sampler = RowSampler(context)
    made = chain(context, CHAINS["usual"])
    before = [sampler.sample([row], [made])[0] for row in rows]
    context.native.lib.llama_sampler_reset(made.handle)
    assert [sampler.sample([row], [made])[0] for row in rows] == before


def test_names_and_closing(context: Context) -> None:
    made = chain(context, CHAINS["usual"])
    assert [name.lstrip("+") for name in made.names] == ["top-k", "top-p", "min-p", "temp-ext", "dist"]
    made.close()
    made.close()
    with pytest.raises(AssertionError, match="closed"):
        made.accept(1)


def distribution(sampler: RowSampler, row: int, made: SamplerChain, mask: Mask | None = None) -> dict[int, float]:
    """The likeliest first."""
    ids, probabilities = sampler.distribution(row, made, mask)
    order = np.lexsort((ids, -probabilities))
    return dict(zip(ids[order].tolist(), probabilities[order].tolist(), strict=True))


@pytest.mark.parametrize("name", CHAINS)
def test_the_distribution_is_what_is_sampled_from(context: Context, rows: list[int], name: str) -> None:
    """It leaves the chain as it was, sums to 1, and holds the token that comes."""
    sampler = RowSampler(context)
    with chain(context, CHAINS[name]) as ours, chain(context, CHAINS[name]) as untouched:
        for row in rows:
            found = distribution(sampler, row, ours)
            tokens = sampler.sample([row, row], [ours, untouched])
            assert tokens[0] == tokens[1]
            assert found[tokens[0]] > 0
            assert sum(found.values()) == pytest.approx(1.0)


def test_the_distribution_of_a_greedy_chain_is_one_token(context: Context, rows: list[int]) -> None:
    sampler = RowSampler(context)
    with chain(context, (("logit_bias", ((28, -np.inf),)), ("greedy",))) as greedy:
        found = distribution(sampler, rows[0], greedy)
        assert found == {sampler.sample(rows[:1], [greedy])[0]: 1.0}


def test_a_row_of_nan_has_no_distribution(context: Context, rows: list[int]) -> None:
    sampler = RowSampler(context)
    pointer = context.native.lib.llama_get_logits_ith(context.handle, rows[0])
    pointer[5] = float("nan")
    with chain(context, CHAINS["usual"]) as usual:
        assert distribution(sampler, rows[0], usual) == {}


def penalised(context: Context, row: int, *, newlines: bool, chosen: tuple[int, ...]) -> dict[int, float]:
    with chain(context, (("penalties", 64, 1.5, 0.5, 0.25, newlines), ("dist", 1))) as made:
        for token in chosen:
            made.accept(token)
        return distribution(RowSampler(context), row, made)


def test_the_penalties_spare_newlines_unless_told(context: Context, rows: list[int]) -> None:
    """Against the formula: of the tokens that occurred, all fall but the newline."""
    newline = context.model.vocab.nl
    assert newline is not None
    other = 28
    logits = context.logits(rows[0]).astype(np.float64)
    logits[newline] = context.logits(rows[0])[newline] = 3.0
    for newlines in (True, False):
        expected = logits.copy()
        for token, count in ((other, 1), (newline, 2)):
            if token == other or newlines:
                scaled = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
                expected[token] = scaled - 0.5 * count - 0.25
        weights = np.exp(expected - expected.max())
        found = penalised(context, rows[0], newlines=newlines, chosen=(other, newline, newline))
        for token in (newline, other, 500):
            assert found[token] == pytest.approx(weights[token] / weights.sum(), rel=1e-4)


def test_a_newline_that_an_earlier_sampler_dropped_stays_dropped(context: Context, rows: list[int]) -> None:
    newline = context.model.vocab.nl
    context.logits(rows[0])[newline] = -100.0
    with chain(context, (("top_k", 5), ("penalties", 64, 1.5, 0.5, 0.25, False), ("dist", 1))) as made:
        found = distribution(RowSampler(context), rows[0], made)
        assert (len(found), newline in found) == (5, False)
        # Sorted, and the newline among them, but not at its own index.
        context.logits(rows[0])[newline] = 100.0
        for _ in range(3):
            made.accept(newline)
        assert next(iter(distribution(RowSampler(context), rows[0], made))) == newline


def test_sparing_keeps_history_through_clone_copy_and_reset(context: Context, rows: list[int]) -> None:
    steps: Steps = (("penalties", 64, 1.5, 0.5, 0.25, False), ("dist", 1))
    sampler, lib = RowSampler(context), context.native.lib
    with chain(context, steps) as made, chain(context, steps) as other:
        fresh = distribution(sampler, rows[0], made)
        for token in list(fresh)[:20]:
            made.accept(token)
        used = distribution(sampler, rows[0], made)
        assert used != fresh
        with made.clone() as clone:
            assert distribution(sampler, rows[0], clone) == used
        lib.llama_sampler_copy(made.handle, other.handle)
        assert distribution(sampler, rows[0], other) == used
        context.native.lib.llama_sampler_reset(made.handle)
        assert distribution(sampler, rows[0], made) == fresh
        assert "penalties" in made.names[0]


def test_infill_leaves_few_choices_or_ends(context: Context, rows: list[int]) -> None:
    """libllama's rule: EOG if 3 * p(EOG) * n > p(text), else what has at least a share of the probability."""
    sampler, eog = RowSampler(context), set(context.model.vocab.eog_tokens)
    logits = context.logits(rows[0])
    logits[:] = -50.0
    logits[[1000, 2000]] = 5.0
    with chain(context, (("top_k", 40), ("infill",), ("dist", 1))) as made:
        assert set(distribution(sampler, rows[0], made)) - eog == {1000, 2000}
        logits[min(eog)] = 5.0
        assert set(distribution(sampler, rows[0], made)) <= eog


def test_adaptive_p_prefers_what_lies_near_its_target(context: Context, rows: list[int]) -> None:
    """Of a likely and a less likely token, the one whose probability is the target's comes more often."""
    logits = context.logits(rows[0])
    logits[:] = -np.inf
    logits[[10, 20]] = np.log([0.8, 0.2])
    for target, preferred in ((0.8, 10), (0.2, 20)):
        with chain(context, (("adaptive_p", target, 0.9, 1),)) as made:
            found = distribution(RowSampler(context), rows[0], made)
            assert found[preferred] > found[30 - preferred]
    with chain(context, (("adaptive_p", -1.0, 0.9, 1),)) as made:
        assert distribution(RowSampler(context), rows[0], made) == pytest.approx({10: 0.8, 20: 0.2})


def test_infill_needs_an_end_and_short_pieces(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """libllama would assert, and throw."""
    vocab = context.model.vocab
    with monkeypatch.context() as patched:
        patched.setattr(vocab, "eot", None)
        patched.setattr(vocab, "eos", None)
        with pytest.raises(InvalidRequest, match="needs a model with a token that ends"):
            chain(context, (("infill",),))
    with monkeypatch.context() as patched:
        patched.setattr(vocab, "longest_piece", 513)
        with pytest.raises(InvalidRequest, match="more than 512 bytes"):
            chain(context, (("infill",),))


@pytest.mark.parametrize("name", ["greedy", *CHAINS])
def test_a_chain_that_is_not_told_of_a_token_would_take_no_note_of_it(
    context: Context, rows: list[int], name: str
) -> None:
    """The oracle is told by libllama's own function."""
    steps = CHAINS.get(name, (("greedy",),))
    with chain(context, steps) as ours, chain(context, steps) as oracle:
        for row in (*rows, *rows):
            for token in (28, 504, row):
                ours.accept(token)
                context.native.lib.llama_sampler_accept(oracle.handle, token)
            sampler = RowSampler(context)
            assert sampler.sample([row], [ours]) == sampler.sample([row], [oracle])


def mask_of(context: Context, tokens: Iterable[int]) -> Mask:
    bits = np.zeros((context.n_vocab + 31) // 32 * 32, bool)
    bits[list(tokens)] = True
    return np.packbits(bits, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("forbidden", ["nearly all", "every other", "the highest", "few"])
@pytest.mark.parametrize("name", ["greedy", *CHAINS])
def test_a_mask_is_as_if_the_other_tokens_had_no_chance(
    context: Context, rows: list[int], name: str, forbidden: str
) -> None:
    """The oracle has -inf in the row itself.

    Mirostat counts candidates, even impossible ones, and libllama's typical sampling makes NaN of them: these two only
    stay inside.
    """
    steps = CHAINS.get(name, (("greedy",),))
    every = np.arange(context.n_vocab)
    with chain(context, steps) as masked, chain(context, steps) as oracle:
        for row in rows:
            logits = context.logits(row)
            rest = {
                "nearly all": np.setdiff1d(every, [0, 31, 32, 63, *range(300, 340), 28, 504, context.n_vocab - 1]),
                "every other": every[row % 2 :: 2],
                "the highest": np.argsort(-logits)[: 1 + 20 * row],
                "few": every[7:40:11],
            }[forbidden]
            allowed = np.setdiff1d(every, rest)
            [token] = RowSampler(context).sample([row], [masked], [mask_of(context, allowed)])
            assert token in allowed or name == "infill"  # which has an end of its own where nothing is likely
            logits[rest] = -np.inf
            if not name.startswith(("mirostat", "typical")):
                assert RowSampler(context).sample([row], [oracle]) == [token]


@pytest.mark.parametrize("name", ["greedy", *CHAINS])
def test_masks_of_none_of_one_and_of_all_tokens(context: Context, rows: list[int], name: str) -> None:
    steps = CHAINS.get(name, (("greedy",),))
    sampler = RowSampler(context)
    every = mask_of(context, list(range(context.n_vocab)))
    masks = [mask_of(context, []), mask_of(context, [77]), every, None]
    chains = [chain(context, steps) for _ in masks]
    nothing, one, *same = sampler.sample([rows[0]] * 4, chains, masks)
    assert nothing == BAD_ROW
    assert one == 77
    assert same[0] == same[1]
    assert distribution(sampler, rows[0], chains[0], masks[0]) == {}
    assert distribution(sampler, rows[0], chains[1], masks[1]) == {77: pytest.approx(1.0)}
    assert distribution(sampler, rows[0], chains[2], every) == distribution(sampler, rows[0], chains[3])


def one_by_one(
    sampler: RowSampler, rows: list[int], made: SamplerChain, masks: list[Mask | None] | None = None
) -> list[int]:
    """The tokens of rows that are sampled in calls of their own: what a chain's rows must give together."""
    return [sampler.sample([row], [made], [masks[i]] if masks else None)[0] for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", ["greedy", *CHAINS])
@pytest.mark.parametrize("n_right", [0, 1, 4, 7])
def test_a_draft_is_verified_as_if_each_row_were_sampled_by_itself(
    context: Context, rows: list[int], name: str, n_right: int
) -> None:
    """The tokens are the same up to the first that was not drafted, and so is all that the chain draws afterwards."""
    steps, sampler = CHAINS.get(name, (("greedy",),)), RowSampler(context)
    with chain(context, steps) as ours, chain(context, steps) as oracle, chain(context, steps) as other:
        expected = one_by_one(sampler, rows, oracle.clone())
        draft = [token if i < n_right else token + 1 for i, token in enumerate(expected[:7])]
        lone, verified = sampler.verify(
            [range(rows[0], rows[0] + 1), range(rows[0], rows[7] + 1)], [other, ours], [(), draft]
        )
        assert verified == expected[: n_right + 1]
        assert lone == expected[:1]
        one_by_one(sampler, rows[: n_right + 1], oracle)
        assert one_by_one(sampler, rows * 5, ours) == one_by_one(sampler, rows * 5, oracle)


@pytest.mark.parametrize("name", ["greedy", "usual", "top_p", "penalties"])
def test_each_row_of_a_draft_has_its_own_mask(context: Context, rows: list[int], name: str) -> None:
    steps, sampler = CHAINS.get(name, (("greedy",),)), RowSampler(context)
    masks = [mask_of(context, list(range(100 * i, 100 * i + 40))) for i in range(8)]
    with chain(context, steps) as ours, chain(context, steps) as oracle, chain(context, steps) as free:
        expected = one_by_one(sampler, rows, oracle, [*masks])
        assert all(100 * i <= token < 100 * i + 40 for i, token in enumerate(expected))
        every = range(rows[0], rows[7] + 1)
        free_text = one_by_one(sampler, rows, free.clone())
        assert sampler.verify([every, every], [ours, free], [expected[:7], free_text[:7]], [masks, ()]) == [
            expected,
            free_text,
        ]


@pytest.mark.parametrize("name", ["greedy", "usual", "dist"])
def test_a_bad_row_behind_a_draft_ends_it(context: Context, rows: list[int], name: str) -> None:
    steps, sampler = CHAINS.get(name, (("greedy",),)), RowSampler(context)
    with chain(context, steps) as ours, chain(context, steps) as oracle:
        expected = one_by_one(sampler, rows, oracle)
        context.logits(rows[3])[:] = np.nan
        every = range(rows[0], rows[7] + 1)
        assert sampler.verify([every], [ours], [expected[:7]]) == [[*expected[:3], BAD_ROW]]


def test_more_drafts_than_there_ever_were_have_room(context: Context, rows: list[int]) -> None:
    sampler, every = RowSampler(context), range(rows[0], rows[7] + 1)
    chains = [chain(context, (("greedy",),)) for _ in range(40)]
    expected = sampler.sample(rows, chains[:8])
    assert sampler.verify([every] * 40, chains, [expected[:7]] * 40) == [expected] * 40


@pytest.mark.parametrize("name", ["greedy", "biased", "usual"])
def test_a_bad_logit_that_a_large_mask_leaves_out_does_no_harm(context: Context, rows: list[int], name: str) -> None:
    steps = {"biased": (("logit_bias", ((3, -1.0),)), ("greedy",))}.get(name, CHAINS.get(name, (("greedy",),)))
    mask = mask_of(context, range(context.n_vocab - 40))
    with chain(context, steps) as ours, chain(context, steps) as oracle:
        for row in rows:
            logits = context.logits(row)
            expected = RowSampler(context).sample([row], [oracle], [mask])
            logits[-1], logits[-2] = np.nan, np.inf
            assert RowSampler(context).sample([row], [ours], [mask]) == expected
            logits[0] = np.nan
            assert RowSampler(context).sample([row], [oracle.clone()], [mask]) == [BAD_ROW]
