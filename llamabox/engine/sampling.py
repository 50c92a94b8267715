"""The sampling plan: which samplers run, in which order, with which values. Pure; building them is the Runner's.

Order: logit bias → penalties, unless named elsewhere → the named samplers → the pick, which is
adaptive_p's where that is named, wherever. Mirostat replaces everything behind the penalties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llamabox.engine.request import RANDOM_SEED, SamplingParams

MAX_INFILL = 256
"""Candidates that reach the infill sampler: it compares each with each, a whole vocabulary would take minutes."""


@dataclass(frozen=True, slots=True)
class SamplerStep:
    """One sampler of a chain: libllama's name of it and its arguments, in libllama's order."""

    name: str
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The chain of one sequence. Of its prompt the last `n_history` tokens count for its penalties."""

    steps: tuple[SamplerStep, ...]
    n_history: int


def plan(params: SamplingParams, *, seed: int, n_ctx: int, banned: tuple[int, ...] = ()) -> Plan:
    """The chain for `params`. `banned` are token ids that must never come; `n_ctx` stands for a window of -1."""
    bias = {token: bias for token, bias in params.logit_bias if isinstance(token, int)}
    assert not any(isinstance(token, str) for token, _ in params.logit_bias), "texts are the worker's to resolve"
    bias.update((token, -math.inf) for token in banned)
    biased = [SamplerStep("logit_bias", (tuple(bias.items()),))] if bias else []
    chain = _chain(params, seed=seed, n_ctx=n_ctx)
    n_history = max((_window(step) for step in chain), default=0)
    if _is_greedy(params) and not n_history:
        chain = [SamplerStep("greedy")]
    return Plan(steps=(*biased, *chain), n_history=n_history)


def _window(step: SamplerStep) -> int:
    """Tokens that a penalty looks back at; 0 for what is none."""
    at = {"penalties": 0, "dry": 3}.get(step.name)
    window = 0 if at is None else step.arguments[at]
    assert isinstance(window, int)
    return window


def choice_seed(seed: int, index: int) -> int:
    """The seed of the `index`-th of n sequences. Never RANDOM_SEED, which libllama would replace by a random one."""
    return (seed + index) % RANDOM_SEED


def _is_greedy(params: SamplingParams) -> bool:
    """Whether the named samplers leave the largest logit in and the temperature picks it.

    XTC, typical sampling and infill may remove the most likely token; the others never do.
    """
    removes_top = (
        (params.xtc_probability > 0 and "xtc" in params.samplers)
        or (params.typical_p < 1 and "typ_p" in params.samplers)
        or "infill" in params.samplers
    )
    freezes = params.temperature <= 0 and params.dynatemp_range <= 0 and "temperature" in params.samplers
    return freezes and not removes_top and params.mirostat == 0


def _chain(params: SamplingParams, *, seed: int, n_ctx: int) -> list[SamplerStep]:
    if params.mirostat == 1:
        # 100 is m, the number of tokens that estimate s_hat: the paper's value, fixed in llama.cpp as well.
        pick = SamplerStep("mirostat", (seed, params.mirostat_tau, params.mirostat_eta, 100))
        return [*_penalties(params, n_ctx), SamplerStep("temp", (params.temperature,)), pick]
    if params.mirostat == 2:
        pick = SamplerStep("mirostat_v2", (seed, params.mirostat_tau, params.mirostat_eta))
        return [*_penalties(params, n_ctx), SamplerStep("temp", (params.temperature,)), pick]
    steps: list[SamplerStep] = []
    pick = SamplerStep("dist", (seed,))
    if "adaptive_p" in params.samplers:
        pick = SamplerStep("adaptive_p", (params.adaptive_target, params.adaptive_decay, seed))
    names = params.samplers if "penalties" in params.samplers else ("penalties", *params.samplers)
    for name in names:
        steps += _named(name, params, seed=seed, n_ctx=n_ctx)
    return [*steps, pick]


def _named(name: str, params: SamplingParams, *, seed: int, n_ctx: int) -> list[SamplerStep]:
    """The sampler `name` as a list: empty when its values switch it off."""
    keep = params.min_keep
    match name:
        case "penalties":
            return _penalties(params, n_ctx)
        case "dry":
            return _dry(params, n_ctx)
        case "top_k":
            return [SamplerStep("top_k", (params.top_k,))] if params.top_k > 0 else []
        case "typ_p":
            return [SamplerStep("typical", (params.typical_p, keep))] if params.typical_p < 1 else []
        case "top_p":
            return [SamplerStep("top_p", (params.top_p, keep))] if params.top_p < 1 else []
        case "min_p":
            return [SamplerStep("min_p", (params.min_p, keep))] if params.min_p > 0 else []
        case "top_n_sigma":
            return [SamplerStep("top_n_sigma", (params.top_n_sigma,))] if params.top_n_sigma > 0 else []
        case "xtc":
            active = params.xtc_probability > 0 and params.xtc_threshold <= 0.5
            return [SamplerStep("xtc", (params.xtc_probability, params.xtc_threshold, keep, seed))] if active else []
        case "temperature":
            return [SamplerStep("temp_ext", (params.temperature, params.dynatemp_range, params.dynatemp_exponent))]
        case "infill":
            return [SamplerStep("top_k", (MAX_INFILL,)), SamplerStep("infill")]
        case "adaptive_p":
            return []  # it is the pick
    raise AssertionError(f"unknown sampler {name!r}")


def _penalties(params: SamplingParams, n_ctx: int) -> list[SamplerStep]:
    window = n_ctx if params.repeat_last_n < 0 else params.repeat_last_n
    idle = params.repeat_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0
    if window == 0 or idle:
        return []
    strengths = (params.repeat_penalty, params.frequency_penalty, params.presence_penalty)
    values = (window, *strengths, params.penalize_nl)
    return [SamplerStep("penalties", values)]


def _dry(params: SamplingParams, n_ctx: int) -> list[SamplerStep]:
    window = n_ctx if params.dry_penalty_last_n < 0 else params.dry_penalty_last_n
    if window == 0 or params.dry_multiplier == 0:
        return []
    values = (
        params.dry_multiplier,
        params.dry_base,
        params.dry_allowed_length,
        window,
        params.dry_sequence_breakers,
    )
    return [SamplerStep("dry", values)]
