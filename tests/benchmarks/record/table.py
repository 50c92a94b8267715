"""Rounds of two servers as the cells of a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.record.loads import Column
from tests.benchmarks.record.machine import Machine
from tests.benchmarks.record.subjects import Subject

Pair = tuple[float, float]
"""A figure of one round: of the first server, and of the second."""

READY = Column("ready, s", 2)
MEMORY = Column("memory, MiB", 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the rounds say of one figure. The ratio is second over first, and each round has its own."""

    first: float
    second: float
    ratio: float
    lowest: float
    highest: float


def compare(rounds: Sequence[Pair]) -> Comparison:
    """Medians, and how far the rounds' ratios are apart. At least one round."""
    ratios = [second / first for first, second in rounds]
    return Comparison(
        first=statistics.median(first for first, _ in rounds),
        second=statistics.median(second for _, second in rounds),
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
    )


def cell(
    key: str, column: Column, rounds: Mapping[str, Sequence[Pair]], subject: Subject, machine: Machine | None
) -> str:
    """`47.4 → 42.2, **0.89** (0.86–0.92), 62 → 55 %`; empty where `rounds` have nothing of this column, `load.figure`.

    The last are the parts of what the machine can do at the most.
    """
    if key not in rounds:
        return ""
    found = compare(rounds[key])
    text = f"{found.first:.{column.decimals}f} → {found.second:.{column.decimals}f}, **{found.ratio:.2f}**"
    if len(rounds[key]) > 1:
        text += f" ({found.lowest:.2f}–{found.highest:.2f})"
    if column.share is not None and machine is not None:
        basis = compare(rounds[f"{key.partition('.')[0]}.{column.basis}"])
        first, second = (100 * column.share(subject, machine, value) for value in (basis.first, basis.second))
        text += f", {first:.0f} → {second:.0f} %"
    return text


def heading(columns: Mapping[str, Column]) -> str:
    titles = ["model", *(column.title for column in columns.values())]
    return f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}"


def row(
    subject: Subject, columns: Mapping[str, Column], rounds: Mapping[str, Sequence[Pair]], machine: Machine | None
) -> str:
    """A model's line; empty cells where a load is not for it."""
    name = f"{subject.name} ({subject.path.stat().st_size >> 20} MiB)"
    cells = [cell(key, column, rounds, subject, machine) for key, column in columns.items()]
    return f"| {' | '.join([name, *cells])} |"
