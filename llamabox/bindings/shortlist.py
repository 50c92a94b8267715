"""How many of a row's highest logits a sampler chain can choose from, so that the others need not be looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ALL = 0
LONGEST = 2048
"""A longer shortlist costs as much to find as it saves."""

KEEPS_ARGMAX = frozenset({"top_k", "top_p", "min_p", "top_n_sigma", "temp", "greedy"})
"""Samplers that leave the highest logit in front."""


def shortlist(steps: Sequence[tuple[str, Sequence[Any]]]) -> int:
    """The number of highest logits that decide what a chain of (libllama's name, arguments) does; ALL for every one.

    What stands before a top_k may only lower logits. If it lowers m of them, the k highest afterwards are among the
    k + m highest before: of those k at least were left alone, and nothing outside is higher than they are.
    """
    if steps and steps[-1][0] == "greedy" and KEEPS_ARGMAX.issuperset(name for name, _ in steps):
        return 1
    n_lowered = 0
    for name, arguments in steps:
        if name in ("top_k", "greedy"):
            n_best = n_lowered + (arguments[0] if arguments else 1)
            return n_best if n_lowered < n_best <= LONGEST else ALL
        lowers = _lowers(name, arguments)
        if lowers is None:
            return ALL
        n_lowered += lowers
    return ALL


def _lowers(name: str, arguments: Sequence[Any]) -> int | None:
    """How many logits a sampler lowers at most; None where it may do anything else."""
    match name:
        case "logit_bias":
            biases: Iterable[tuple[int, float]] = arguments[0]
            pairs = list(biases)
            return len(pairs) if all(bias <= 0 for _, bias in pairs) else None
        case "penalties":
            last_n, repeat, frequency, presence = arguments[:4]
            return max(last_n, 0) if repeat >= 1 and frequency >= 0 and presence >= 0 else None
        case "dry":
            multiplier, base, _, last_n = arguments[:4]
            return max(last_n, 0) if multiplier >= 0 and base >= 0 else None
    return None
