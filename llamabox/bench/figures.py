"""From outcomes to figures, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from llamabox.bench.client import RequestOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Milliseconds, per second, counts. NaN where nothing was measured. Failed requests count as such alone.

    ttft: from sending a request to its first text. gap: between two texts of one stream.
    """

    clients: int
    requests: int
    failed: int
    tok_s: float  # generated, all streams together
    req_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    gap_p50_ms: float
    gap_p95_ms: float
    gap_max_ms: float
    total_p50_ms: float  # from sending a request to the end of its answer
    cached: float  # part of the prompt tokens that were cached


HEADINGS = {
    "clients": "clients",
    "requests": "requests",
    "failed": "failed",
    "tok_s": "tok/s",
    "req_s": "req/s",
    "ttft_p50_ms": "TTFT p50",
    "ttft_p95_ms": "p95",
    "gap_p50_ms": "gap p50",
    "gap_p95_ms": "p95",
    "gap_max_ms": "max",
    "total_p50_ms": "total p50",
    "cached": "cached",
}
WIDTH = 9


def figures(n_clients: int, outcomes: Sequence[RequestOutcome], seconds: float) -> Figures:
    """The figures of one run that took `seconds`."""
    good = [outcome for outcome in outcomes if not outcome.error]
    ttft = [(outcome.stamps[0] - outcome.sent) * 1e3 for outcome in good if outcome.stamps]
    gaps = [
        (late - early) * 1e3
        for outcome in good
        for early, late in zip(outcome.stamps, outcome.stamps[1:], strict=False)
    ]
    n_prompt = sum(outcome.n_prompt for outcome in good)
    return Figures(
        clients=n_clients,
        requests=len(outcomes),
        failed=len(outcomes) - len(good),
        tok_s=sum(outcome.n_tokens for outcome in good) / seconds,
        req_s=len(good) / seconds,
        ttft_p50_ms=quantile(ttft, 0.5),
        ttft_p95_ms=quantile(ttft, 0.95),
        gap_p50_ms=quantile(gaps, 0.5),
        gap_p95_ms=quantile(gaps, 0.95),
        gap_max_ms=quantile(gaps, 1.0),
        total_p50_ms=quantile([(outcome.done - outcome.sent) * 1e3 for outcome in good], 0.5),
        cached=sum(outcome.n_cached for outcome in good) / n_prompt if n_prompt else math.nan,
    )


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest of `values` that at least `part` of them do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


def heading() -> str:
    """The line above the rows."""
    return " ".join(f"{HEADINGS[field.name]:>{WIDTH}}" for field in fields(Figures))


def row(run: Figures) -> str:
    """One line of the table."""
    return " ".join(f"{_cell(field.name, getattr(run, field.name)):>{WIDTH}}" for field in fields(Figures))


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    if isinstance(value, int):
        return str(value)
    if name == "cached":
        return f"{value:.0%}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
