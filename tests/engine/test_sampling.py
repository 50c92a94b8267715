"""Which samplers run, in which order, with which values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.request import (
    DEFAULT_SAMPLERS,
    RANDOM_SEED,
    SAMPLER_LETTERS,
    SAMPLER_NAMES,
    SamplingParams,
)
from llamabox.engine.sampling import MAX_INFILL, Plan, SamplerStep, choice_seed, plan

N_CTX = 512
CANONICAL = sorted(set(SAMPLER_NAMES.values()))

EVERYTHING = SamplingParams(
    repeat_penalty=1.1,
    dry_multiplier=0.8,
    top_k=40,
    typical_p=0.9,
    top_p=0.9,
    min_p=0.1,
    top_n_sigma=1.0,
    xtc_probability=0.5,
    temperature=0.7,
    min_keep=2,
)
"""Values with which each sampler does something."""

STEP_NAMES = {
    "penalties": "penalties",
    "dry": "dry",
    "top_n_sigma": "top_n_sigma",
    "top_k": "top_k",
    "typ_p": "typical",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc": "xtc",
    "temperature": "temp_ext",
    "infill": "infill",
    "adaptive_p": "adaptive_p",
}


def made(params: SamplingParams, *, seed: int = 7, banned: tuple[int, ...] = ()) -> Plan:
    return plan(params, seed=seed, n_ctx=N_CTX, banned=banned)


def names(params: SamplingParams, **rest: object) -> list[str]:
    return [step.name for step in made(params, **rest).steps]  # type: ignore[arg-type]


def arguments(params: SamplingParams, name: str) -> tuple[object, ...]:
    [step] = [step for step in made(params).steps if step.name == name]
    return step.arguments


def test_the_default_chain_is_the_seeds() -> None:
    expected = ["penalties", "dry", "top_k", "typical", "top_p", "min_p", "xtc", "temp_ext", "dist"]
    assert names(EVERYTHING) == expected


@given(st.lists(st.sampled_from(CANONICAL), unique=True))
def test_the_named_samplers_run_in_the_order_of_their_names_and_the_pick_is_last(order: list[str]) -> None:
    """Infill brings a bound on its candidates along, and adaptive_p is the pick, wherever it is named."""
    expected = ["penalties"] if "penalties" not in order else []
    for name in order:
        expected += {"infill": ["top_k", "infill"], "adaptive_p": []}.get(name, [STEP_NAMES[name]])
    pick = "adaptive_p" if "adaptive_p" in order else "dist"
    assert names(replace(EVERYTHING, samplers=tuple(order))) == [*expected, pick]


def test_every_spelling_and_every_letter_names_a_sampler_that_can_be_planned() -> None:
    assert set(CANONICAL) == set(STEP_NAMES) == set(SAMPLER_LETTERS.values())
    assert set(DEFAULT_SAMPLERS) < set(CANONICAL)
    for alias, name in SAMPLER_NAMES.items():
        assert STEP_NAMES[name] in names(replace(EVERYTHING, samplers=(name,))), alias


def test_an_unknown_name_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="unknown sampler"):
        made(replace(EVERYTHING, samplers=("topk",)))


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({"repeat_penalty": 1.0}, "penalties"),
        ({"repeat_last_n": 0}, "penalties"),
        ({"dry_multiplier": 0.0}, "dry"),
        ({"dry_penalty_last_n": 0}, "dry"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"typical_p": 1.0}, "typical"),
        ({"top_p": 1.0}, "top_p"),
        ({"min_p": 0.0}, "min_p"),
        ({"top_n_sigma": 0.0}, "top_n_sigma"),
        ({"top_n_sigma": -1.0}, "top_n_sigma"),
        ({"xtc_probability": 0.0}, "xtc"),
        ({"xtc_threshold": 0.51}, "xtc"),
    ],
)
def test_a_value_that_switches_its_sampler_off_leaves_no_step(off: dict[str, float], gone: str) -> None:
    everything = replace(EVERYTHING, samplers=tuple(name for name in CANONICAL if name != "infill"))
    assert gone in names(everything)
    assert set(names(everything)) - set(names(replace(everything, **off))) == {gone}  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["repeat_penalty", "frequency_penalty", "presence_penalty"])
def test_each_penalty_alone_is_reason_enough_for_penalties(field: str) -> None:
    params = SamplingParams(temperature=0, **{field: 0.5})  # type: ignore[arg-type]
    assert "penalties" in names(params)
    assert made(params).n_history


def test_a_window_of_minus_one_is_the_whole_context() -> None:
    params = replace(EVERYTHING, repeat_last_n=-1, dry_penalty_last_n=-1)
    assert arguments(params, "penalties")[0] == N_CTX
    assert arguments(params, "dry")[3] == N_CTX
    params = replace(params, repeat_last_n=9, dry_penalty_last_n=11)
    assert arguments(params, "penalties")[0] == 9
    assert arguments(params, "dry")[3] == 11


def test_the_values_reach_their_samplers_in_libllamas_order() -> None:
    params = replace(
        EVERYTHING,
        samplers=tuple(CANONICAL),
        frequency_penalty=0.2,
        presence_penalty=0.3,
        penalize_nl=True,
        adaptive_target=0.25,
        adaptive_decay=0.5,
        dynatemp_range=0.25,
        dynatemp_exponent=2.0,
    )
    assert set(made(params).steps) == {
        SamplerStep("penalties", (64, 1.1, 0.2, 0.3, True)),
        SamplerStep("dry", (0.8, 1.75, 2, N_CTX, ("\n", ":", '"', "*"))),
        SamplerStep("top_n_sigma", (1.0,)),
        SamplerStep("top_k", (40,)),
        SamplerStep("typical", (0.9, 2)),
        SamplerStep("top_p", (0.9, 2)),
        SamplerStep("min_p", (0.1, 2)),
        SamplerStep("xtc", (0.5, 0.1, 2, 7)),
        SamplerStep("temp_ext", (0.7, 0.25, 2.0)),
        SamplerStep("top_k", (MAX_INFILL,)),
        SamplerStep("infill"),
        SamplerStep("adaptive_p", (0.25, 0.5, 7)),
    }


@pytest.mark.parametrize(
    ("version", "pick"),
    [(1, SamplerStep("mirostat", (7, 5.0, 0.1, 100))), (2, SamplerStep("mirostat_v2", (7, 5.0, 0.1)))],
)
def test_mirostat_replaces_everything_behind_the_penalties(version: int, pick: SamplerStep) -> None:
    params = replace(EVERYTHING, mirostat=version, logit_bias=((3, 1.0),))
    steps = made(params).steps
    assert [step.name for step in steps[:2]] == ["logit_bias", "penalties"]
    assert steps[2:] == (SamplerStep("temp", (0.7,)), pick)


def test_bias_comes_first_and_a_ban_outweighs_it() -> None:
    params = replace(EVERYTHING, logit_bias=((3, 1.5), (4, 2.0)))
    first = made(params, banned=(4, 9)).steps[0]
    assert first == SamplerStep("logit_bias", (((3, 1.5), (4, -math.inf), (9, -math.inf)),))
    assert names(EVERYTHING)[0] != "logit_bias"


# The largest logit

CLEAN = SamplingParams(temperature=0.0)


def is_greedy(params: SamplingParams, **rest: object) -> bool:
    """Whether the largest logit, after the bias, is picked without building the candidates."""
    found = [name for name in names(params, **rest) if name != "logit_bias"]
    assert found == ["greedy"] or "greedy" not in found
    return found == ["greedy"]


@pytest.mark.parametrize(
    "harmless",
    [
        {},
        {"temperature": -1.0},
        {"top_k": 1, "top_p": 0.1, "min_p": 0.9, "top_n_sigma": 0.1},
        {"xtc_probability": 0.5, "samplers": ("temperature",)},
        {"typical_p": 0.5, "samplers": ("top_k", "temperature")},
        {"repeat_last_n": 0, "repeat_penalty": 2.0},
        {"logit_bias": ((1, 0.5),)},
        {"samplers": ("temperature", "adaptive_p"), "adaptive_target": 0.3},  # one candidate is left to pick from
    ],
)
def test_it_is_greedy_when_nothing_can_change_the_largest_logit(harmless: dict[str, object]) -> None:
    assert is_greedy(replace(CLEAN, **harmless))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "meddling",
    [
        {"temperature": 0.1},
        {"dynatemp_range": 0.5},
        {"samplers": ("top_k",)},
        {"repeat_penalty": 1.1},
        {"frequency_penalty": 0.1},
        {"presence_penalty": -0.1},
        {"dry_multiplier": 0.5},
        {"xtc_probability": 0.5},
        {"typical_p": 0.9},
        {"mirostat": 1},
        {"mirostat": 2},
        {"samplers": ("top_k", "infill", "temperature")},
    ],
)
def test_it_is_not_greedy_when_something_may_pick_another_token(meddling: dict[str, object]) -> None:
    assert not is_greedy(replace(CLEAN, **meddling))  # type: ignore[arg-type]


def test_a_ban_comes_before_the_largest_logit_is_picked() -> None:
    assert made(CLEAN, banned=(2,)).steps == (SamplerStep("logit_bias", (((2, -math.inf),),)), SamplerStep("greedy"))


def test_only_samplers_with_a_memory_want_the_prompt() -> None:
    assert not made(CLEAN).n_history
    assert made(replace(CLEAN, repeat_penalty=1.2)).n_history
    assert made(replace(CLEAN, dry_multiplier=0.2)).n_history
    # DRY is not in the chain, so it remembers nothing.
    assert not made(replace(CLEAN, dry_multiplier=0.2, samplers=("temperature",))).n_history


# Seeds


@given(st.integers(0, RANDOM_SEED), st.integers(0, 255))
def test_a_choices_seed_is_never_the_one_that_means_random(seed: int, index: int) -> None:
    assert 0 <= choice_seed(seed, index) < RANDOM_SEED


@given(st.integers(0, RANDOM_SEED - 1))
def test_the_first_choice_has_the_requests_seed_and_the_others_have_their_own(seed: int) -> None:
    seeds = [choice_seed(seed, index) for index in range(64)]
    assert seeds[0] == seed
    assert len(set(seeds)) == 64
