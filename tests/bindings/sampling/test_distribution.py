"""Over many seeds the tokens follow the distribution that libllama's full chain leaves on the same logits.

Chi-squared, with every seed fixed: a test's outcome never changes. Its limit is 4.5 deviations of the statistic's
normal approximation (Wilson and Hilferty): one in 300,000 if all is right; a temperature of 0.9 for 0.8 is far beyond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Native
from llamabox.bindings.sampling.sampler import CANDIDATE, RowSampler
from tests.bindings.sampling.blank_rows import blank_context
from tests.bindings.sampling.chains import Steps, chain, libllama_chain

LIMIT = 4.5
SMALL = 49_152
LIKELY = 24
"""Tokens far above the rest, so that some hundred draws tell their shares."""

HISTORY = (100, 200, 300, 100, 200, 300, 100, 200)
TEMP = ("temp_ext", 0.8, 0.0, 1.0)

CHAINS: dict[str, Steps] = {
    "temperature": (TEMP,),
    "the default": (("top_k", 40), ("top_p", 0.95, 0), ("min_p", 0.05, 0), TEMP),
    "the default without top_k": (("top_p", 0.95, 0), ("min_p", 0.05, 0), TEMP),
    "top_k": (("top_k", 10),),
    "top_p": (("top_p", 0.8, 0), TEMP),
    "min_p": (("min_p", 0.1, 0), TEMP),
    "penalties": (("penalties", 64, 1.3, 0.2, 0.1), TEMP),
    "penalties, top_k": (("penalties", 64, 1.3, 0.2, 0.1), ("top_k", 40), TEMP),
    "dry": (("dry", 0.8, 1.75, 2, 64, ()), TEMP),
    "logit bias": (("logit_bias", ((100, -np.inf), (200, 1.5), (7, -2.0))), ("top_p", 0.9, 0), TEMP),
    "sigma": (("top_n_sigma", 4.0), TEMP),
    "dynamic temperature": (("top_k", 50), ("temp_ext", 0.8, 0.5, 1.2)),
}

SLOW: dict[str, Steps] = {
    "typical": (("typical", 0.7, 0), TEMP),
    "xtc": (("xtc", 0.5, 0.05, 0), TEMP),
    "mirostat": (TEMP, ("mirostat", 5.0, 0.1, 100)),
    "mirostat 2": (TEMP, ("mirostat_v2", 2.0, 0.1)),
    "adaptive": (("min_p", 0.02, 0), ("adaptive_p", 0.1, 0.9)),
}
"""With the seed still to be put in, and distributions that are drawn themselves or go on from token to token."""


def fill(context: Context) -> Context:
    rng = np.random.default_rng(1)
    row = context.logits(0)
    row[:] = rng.normal(-9, 1, context.n_vocab)
    likely = rng.choice(context.n_vocab, LIKELY, replace=False)
    likely[:4] = 100, 200, 300, 7
    row[likely] = rng.normal(4, 1, LIKELY)
    return context


@pytest.fixture(scope="module")
def small(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with blank_context(native, tmp_path_factory.mktemp("blank"), SMALL) as context:
        yield fill(context)


@pytest.fixture(scope="module", params=[SMALL, 262_144])
def blank(
    request: pytest.FixtureRequest, native: Native, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    with blank_context(native, tmp_path_factory.mktemp("blank"), request.param) as context:
        yield fill(context)


def shares(context: Context, steps: Steps, history: Sequence[int]) -> dict[int, float]:
    """What libllama's chain leaves of the whole row, as probabilities."""
    candidates = np.zeros(context.n_vocab, CANDIDATE)
    candidates["id"] = np.arange(context.n_vocab)
    candidates["logit"] = context.logits(0)
    ffi = context.native.ffi
    data = ffi.cast("llama_token_data *", candidates.ctypes.data)
    array = ffi.new("llama_token_data_array *", {"data": data, "size": len(candidates), "selected": -1})
    with chain(context, steps) as made:
        for token in history:
            made.accept(token)
        context.native.lib.llama_sampler_apply(made.handle, array)
    left = np.frombuffer(ffi.buffer(array.data, array.size * CANDIDATE.itemsize), CANDIDATE)
    weights = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return dict(zip(left["id"].tolist(), (weights / weights.sum()).tolist(), strict=True))


def draws(context: Context, steps: Steps, seeds: range, history: Sequence[int] = ()) -> Counter[int]:
    """One token from each seed."""
    sampler = RowSampler(context)
    tokens: Counter[int] = Counter()
    for seed in seeds:
        with chain(context, (*steps, ("dist", seed))) as made:
            for token in history:
                made.accept(token)
            tokens.update(sampler.sample([0], [made]))
    return tokens


def deviation(statistic: float, n_bins: int) -> float:
    """How many deviations a chi-squared statistic lies above its mean, as if it were normal."""
    k = n_bins - 1
    spread = 2 / (9 * k)
    return float(((statistic / k) ** (1 / 3) - (1 - spread)) / np.sqrt(spread))


def misfit(drawn: Counter[int], expected: Mapping[int, float]) -> float:
    """Tokens of which fewer than 10 are expected share a bin, those that cannot come among them."""
    n = drawn.total()
    bins = {token: n * share for token, share in expected.items() if n * share >= 10}
    seen = {token: drawn[token] for token in bins}
    rest, n_rest = n - sum(bins.values()), n - sum(seen.values())
    assert n_rest == 0 or rest > 1e-6 * n, "tokens came that cannot"
    statistic = sum((seen[token] - mean) ** 2 / mean for token, mean in bins.items())
    if rest >= 5:
        statistic += (n_rest - rest) ** 2 / rest
    assert len(bins) >= 3
    return deviation(statistic, len(bins) + (rest >= 5))


@pytest.mark.parametrize("name", CHAINS)
def test_the_seeds_follow_libllamas_distribution(blank: Context, name: str) -> None:
    n_draws = 1200 if blank.n_vocab < 100_000 else 400
    expected = shares(blank, CHAINS[name], HISTORY)
    assert misfit(draws(blank, CHAINS[name], range(n_draws), HISTORY), expected) < LIMIT


def test_another_temperature_is_found_out(blank: Context) -> None:
    drawn = draws(blank, (("temp", 0.9),), range(4000 if blank.n_vocab < 100_000 else 1500))
    assert misfit(drawn, shares(blank, (("temp", 0.9),), ())) < LIMIT
    assert misfit(drawn, shares(blank, (("temp", 0.65),), ())) > 2 * LIMIT


@pytest.mark.parametrize("name", SLOW)
def test_other_seeds_give_libllama_the_same_distribution(small: Context, name: str) -> None:
    """Two samples: the second token from our seeds, and from other ones by libllama alone."""
    n_draws = 150
    ours, theirs = Counter[int](), Counter[int]()
    sampler, lib = RowSampler(small), small.native.lib
    for seed in range(n_draws):
        with chain(small, seeded(SLOW[name], seed)) as made:
            sampler.sample([0], [made])
            ours.update(sampler.sample([0], [made]))
        with libllama_chain(small, seeded(SLOW[name], seed + n_draws)) as made:
            lib.llama_sampler_sample(made.handle, small.handle, 0)
            theirs[lib.llama_sampler_sample(made.handle, small.handle, 0)] += 1
    assert two_samples(ours, theirs) < LIMIT


@pytest.mark.parametrize("name", SLOW)
def test_the_same_seeds_give_libllama_the_same_tokens(blank: Context, name: str) -> None:
    sampler, lib = RowSampler(blank), blank.native.lib
    for seed in range(20 if blank.n_vocab < 100_000 else 4):
        with chain(blank, seeded(SLOW[name], seed)) as made, libllama_chain(blank, seeded(SLOW[name], seed)) as oracle:
            expected = [lib.llama_sampler_sample(oracle.handle, blank.handle, 0) for _ in range(3)]
            assert [sampler.sample([0], [made])[0] for _ in range(3)] == expected


def seeded(steps: Steps, seed: int) -> Steps:
    """`steps` with the seed where libllama wants it, and a pick at the end."""
    made: list[tuple[object, ...]] = []
    for name, *arguments in steps:
        at = {"mirostat": 0, "mirostat_v2": 0}.get(str(name), len(arguments))
        is_random = name in ("xtc", "mirostat", "mirostat_v2", "adaptive_p")
        made.append((name, *arguments[:at], *((seed,) if is_random else ()), *arguments[at:]))
    has_pick = made[-1][0] in ("mirostat", "mirostat_v2", "adaptive_p")
    return tuple(made) if has_pick else (*made, ("dist", seed))


def two_samples(one: Counter[int], other: Counter[int]) -> float:
    """Of equal size. Tokens that came fewer than 6 times in all share a bin."""
    assert one.total() == other.total()
    both = one + other
    bins = [(one[token], other[token]) for token, n in both.items() if n >= 6]
    rest = (one.total() - sum(a for a, _ in bins), other.total() - sum(b for _, b in bins))
    bins += [rest] if sum(rest) else []
    assert len(bins) >= 3
    return deviation(sum((a - b) ** 2 / (a + b) for a, b in bins), len(bins))
