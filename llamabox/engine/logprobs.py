"""Log-probabilities of a row of logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOWEST = float(np.finfo(np.float32).min)
"""Instead of the logarithm of 0, which JSON has no word for."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The tokens that may come and their probabilities, in no order: arrays, for it may be the whole vocabulary."""

    ids: NDArray[np.int32]
    probabilities: NDArray[np.float64]

    def of(self, token: int) -> float:
        """0.0 for a token that cannot come."""
        return float(self.probabilities[self.ids == token].sum())

    def top(self, n: int) -> list[tuple[int, float]]:
        """The `n` likeliest; the lowest id first among equals."""
        ids, probabilities = self.ids, self.probabilities
        if n < len(ids):
            able = probabilities >= np.partition(probabilities, -n)[-n]
            ids, probabilities = ids[able], probabilities[able]
        order = np.lexsort((ids, -probabilities))[:n]
        return list(zip(ids[order].tolist(), probabilities[order].tolist(), strict=True))


def log(probability: float) -> float:
    """The natural logarithm, finite for 0 as well."""
    return math.log(probability) if probability > 0 else LOWEST


def top_logprobs(logits: NDArray[np.float32], token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-softmax of `logits`, shape [n_vocab], at `token`, and its `n` highest entries as (token, logprob).

    The highest first, the lowest id first among equals, as greedy sampling has it. All values are finite.
    """
    n = min(n, len(logits))
    peak = float(logits.max())
    with np.errstate(invalid="ignore", over="ignore"):  # rows of nothing but -inf, or of huge values
        total = float(np.exp(logits - np.float32(peak)).sum(dtype=np.float64))
        norm = peak + float(np.log(total))
        # Not argpartition: which of equal logits it takes is arbitrary.
        threshold = np.partition(logits, -n)[-n]
        ids = np.flatnonzero(logits >= threshold)
        ids = ids[np.argsort(-logits[ids], kind="stable")[:n]]
        values = np.append(logits[ids], logits[token]).astype(np.float64) - norm
    finite: list[float] = np.maximum(np.nan_to_num(values, nan=LOWEST, neginf=LOWEST), LOWEST).tolist()
    return finite[-1], list(zip(ids.tolist(), finite[:-1], strict=True))
