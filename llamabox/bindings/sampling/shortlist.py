"""How much of a row a sampler chain must see: some of its highest logits, or all; then how the chain begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

ALL = 0
LONGEST = 2048
"""A longer shortlist costs as much to find as it saves."""

KEEPS_ARGMAX = frozenset({"top_k", "top_p", "min_p", "top_n_sigma", "temp", "greedy"})
"""Samplers that leave the highest logit in front."""

IN_PLACE = frozenset({"logit_bias", "penalties", "dry", "top_n_sigma"})
"""Samplers that change logits, and neither drop candidates nor move them."""


class ShortlistKind(IntEnum):
    """LB_WIDE_* of the helper."""

    TOP_P = 1
    MIN_P = 2
    DRAW = 3


@dataclass(frozen=True, slots=True)
class Wide:
    """How a chain that chooses among the whole vocabulary begins, in the words of lb_wide (native/helper)."""

    kind: ShortlistKind
    n_head: int
    n_done: int
    temp: float = 1.0
    p: float = 1.0
    min_keep: int = 0
    is_fair: bool = True


FAIR = frozenset({"top_k", "top_p", "min_p", "typical", "top_n_sigma", "xtc", "temp", "temp_ext", "dist", "greedy"})
"""Samplers that ask for logits and places only, never which token it is."""


def wide(steps: Sequence[tuple[str, Sequence[Any]]]) -> Wide | None:
    """How a chain begins for which shortlist() gives ALL; None where it begins in some other way."""
    n_head = next((i for i, (name, _) in enumerate(steps) if name not in IN_PLACE), len(steps))
    at, temp = n_head, 1.0
    if at < len(steps) and steps[at][0] in ("temp", "temp_ext"):
        temp, *dynamic = steps[at][1]
        if temp <= 0 or (dynamic and dynamic[0] > 0):
            return None
        at += 1
    match steps[at:]:
        case [("top_p", (p, min_keep)), *_] if p < 1:
            is_fair = FAIR.issuperset(name for name, _ in steps[at:])
            return Wide(ShortlistKind.TOP_P, n_head, at + 1, temp, p, min_keep, is_fair)
        case [("min_p", (p, min_keep)), *_] if 0 < p <= 1:
            return Wide(ShortlistKind.MIN_P, n_head, at + 1, temp, p, min_keep)
        case [("dist", _)]:
            return Wide(ShortlistKind.DRAW, n_head, at + 1, temp)
    return None


def takes_highest(steps: Sequence[tuple[str, Sequence[Any]]]) -> bool:
    """Whether a chain takes the highest logit there is, behind biases at most, which are the same for all rows.

    Then a token that it takes of all is also the one that it takes of some, if it is among these.
    """
    return shortlist(steps) == 1 or [name for name, _ in steps] in (["greedy"], ["logit_bias", "greedy"])


def shortlist(steps: Sequence[tuple[str, Sequence[Any]]]) -> int:
    """How many of the highest logits decide a chain's token, or ALL. A step is (libllama's name, arguments).

    Samplers before a top_k may only lower logits. If they lower m of them, the k highest afterwards are among the
    k + m highest before: at least k of those were left alone, and no other logit is higher.
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
