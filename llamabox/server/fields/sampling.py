"""The sampling fields of a request body, one rule each, into SamplingParams: docs/api.md, Sampling fields.

C divides by some of these and sizes buffers by others, so every range ends where float32 arithmetic on logits stays
finite and where a buffer stays as small as the context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong
from llamabox.engine.request import (
    HIGHEST_SEED,
    LOWEST_SEED,
    SAMPLER_LETTERS,
    SAMPLER_NAMES,
    SamplingParams,
    fold_seed,
)

LARGE = 1e6
"""Beyond this a strength means nothing any more, and products with logits leave float32."""

SMALLEST_TEMPERATURE = 1e-6
"""Below it a logit over the temperature overflows float32: such a temperature is 0, greedy."""

MAX_SAMPLERS = 32
MAX_BREAKERS = 64
MAX_BREAKER_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Rule:
    """`check(field, value)` gives the value of the SamplingParams field of the same name."""

    field: str
    check: Callable[[str, Any], Any]


def parse_seed(field: str, value: Any) -> int:
    """Any whole number of 64 bits, with a sign or without, folded into 32; RANDOM_SEED draws one."""
    return fold_seed(checks.integer(field, value, LOWEST_SEED, HIGHEST_SEED))


def _between(low: float, high: float) -> Callable[[str, Any], float]:
    return partial(checks.number, low=low, high=high)


def _clamp(low: float, high: float) -> Callable[[str, Any], float]:
    return partial(checks.clamped, low=low, high=high)


def _whole(low: int, high: int = INT32_MAX) -> Callable[[str, Any], int]:
    return partial(checks.integer, low=low, high=high)


def _clamp_whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(field: str, value: Any) -> int:
        return min(max(checks.integer(field, value, -INT32_MAX - 1, INT32_MAX), low), high)

    return check


def _temperature(field: str, value: Any) -> float:
    checked = checks.clamped(field, value, 0.0, checks.FLOAT32_MAX)
    return checked if checked >= SMALLEST_TEMPERATURE else 0.0


def _breakers(field: str, value: Any) -> tuple[str, ...]:
    breakers = checks.strings(field, value, max_count=MAX_BREAKERS, max_length=MAX_BREAKER_LENGTH)
    if not breakers:
        raise wrong(field, "must be a non-empty array of strings")
    return tuple(breakers)


def _samplers(field: str, value: Any) -> tuple[str, ...]:
    """Names, or one string of letters. Unknown ones are left out, as llama.cpp does."""
    if isinstance(value, str):
        known, names = SAMPLER_LETTERS, list(value)
    else:
        known, names = SAMPLER_NAMES, checks.strings(field, value, max_count=MAX_SAMPLERS, max_length=64)
    if len(names) > MAX_SAMPLERS:
        raise wrong(field, f"must have at most {MAX_SAMPLERS} entries, not {len(names)}")
    return tuple(known[name] for name in names if name in known)


RULES = (
    Rule("seed", parse_seed),
    Rule("temperature", _temperature),
    Rule("dynatemp_range", _between(0.0, LARGE)),
    Rule("dynatemp_exponent", _between(0.0, LARGE)),
    Rule("top_k", _clamp_whole(0, INT32_MAX)),
    Rule("top_p", _clamp(0.0, 1.0)),
    Rule("min_p", _clamp(0.0, 1.0)),
    Rule("typical_p", _clamp(0.0, 1.0)),
    Rule("top_n_sigma", _between(-LARGE, LARGE)),
    Rule("xtc_probability", _clamp(0.0, 1.0)),
    Rule("xtc_threshold", _clamp(0.0, 1.0)),
    Rule("repeat_last_n", _whole(-1)),
    Rule("repeat_penalty", _between(1 / LARGE, LARGE)),
    Rule("frequency_penalty", _between(-LARGE, LARGE)),
    Rule("presence_penalty", _between(-LARGE, LARGE)),
    Rule("penalize_nl", checks.boolean),
    Rule("dry_multiplier", _between(0.0, LARGE)),
    Rule("dry_base", _between(-LARGE, LARGE)),
    Rule("dry_allowed_length", _whole(0)),
    Rule("dry_penalty_last_n", _whole(-1)),
    Rule("dry_sequence_breakers", _breakers),
    Rule("mirostat", _clamp_whole(0, 2)),
    Rule("mirostat_tau", _between(0.0, LARGE)),
    Rule("mirostat_eta", _between(0.0, LARGE)),
    Rule("adaptive_target", _between(-LARGE, 1.0)),
    Rule("adaptive_decay", _between(0.0, 0.99)),
    Rule("min_keep", _whole(0)),
    Rule("samplers", _samplers),
    Rule("ignore_eos", checks.boolean),
)


def parse_sampling(body: dict[str, Any], defaults: SamplingParams, n_ctx: int) -> SamplingParams:
    """The defaults with what the body says. `n_ctx` is a slot's context: no history is longer.

    A dry_base below 1 means the default, as llama.cpp has it. `logit_bias` is not of this table (logit_bias.py).
    """
    values = {rule.field: rule.check(rule.field, body[rule.field]) for rule in RULES if rule.field in body}
    for history in ("repeat_last_n", "dry_penalty_last_n"):
        if history in values:
            values[history] = min(values[history], n_ctx)
    if values.get("dry_base", 1.0) < 1.0:
        del values["dry_base"]
    return replace(defaults, **values)
