"""What a pass over the weights costs by its rows, learnt as steps run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Seq

import numpy as np

NODES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of rows whose costs are learnt; those between are read off the line."""

WEIGHT = 0.15
"""Of the newest measurement, once there are a few."""

DRIFT = 0.02
"""Of the newest measurement for what it did not measure: a machine that becomes busy does so for all rows."""

OUTLIER = 2.0
"""A measurement counts as this many times more or less than expected at most."""

STALE = 600
"""Steps after which a cost that was not measured again is guessed from the others: it may have been measured badly."""


class _Node:
    """Seconds of a pass of so many rows. `n` measurements were taken, the last one in step `at`."""

    __slots__ = ("at", "n", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.n = 0
        self.at = 0


class PassCosts:
    """Seconds of a pass by its rows, beside contexts of about one length. Owned by the engine's thread."""

    def __init__(self, slope: float, n_most: int) -> None:
        """`slope`: what a further row is taken to cost before it was measured, in passes of one row.

        `n_most`: rows of the largest pass.
        """
        self._slope = slope
        self._nodes: dict[int, _Node] = {}
        self._n_most = n_most
        self._table: list[float] = []
        self._n_steps = 0

    @property
    def is_known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._nodes)

    def table(self) -> list[float]:
        """Seconds by number of rows, growing; index 0 is 0. To be read only."""
        if not self._table:
            self._table = self._make()
        return self._table

    def observe(self, passes: Seq[int], seconds: float) -> None:
        """A step of these passes and nothing else took so many seconds."""
        self._n_steps += 1
        if not self._nodes:
            self._measure(_nearest(passes[0]), seconds / len(passes), 1.0)
        table = self.table()
        expected = sum(table[min(n, self._n_most)] for n in passes)
        ratio = min(max(seconds / expected, 1 / OUTLIER), OUTLIER)
        used = {_nearest(n): n for n in passes}
        for rows, n in used.items():
            self._measure(rows, table[min(n, self._n_most)] * ratio * self._shape(rows) / self._shape(n), ratio)
        for rows, node in list(self._nodes.items()):
            if rows not in used:
                node.seconds *= ratio**DRIFT
                if self._n_steps - node.at > STALE:
                    del self._nodes[rows]
        if self._n_steps % 8 == 0 or self._n_steps < 32:
            self._table = []

    def _measure(self, rows: int, seconds: float, ratio: float) -> None:
        node = self._nodes.get(rows)
        if node is None:
            node = self._nodes[rows] = _Node(seconds)
            self._table = []
        else:
            node.seconds *= ratio ** max(WEIGHT, 1 / (node.n + 1))
        node.n += 1
        node.at = self._n_steps

    def _shape(self, rows: int) -> float:
        return 1 + self._slope * (rows - 1)

    def _make(self) -> list[float]:
        known = sorted(self._nodes)
        assert known, "nothing was measured"
        values = [self._nodes[rows].seconds for rows in known]
        for i in range(1, len(values)):  # more rows never take less
            values[i] = max(values[i], values[i - 1])
        rows = np.arange(self._n_most + 1)
        table = np.interp(rows, known, values)
        shape = 1 + self._slope * (rows - 1)
        outside = ((0, known[0]), (known[-1], self._n_most + 1))
        for (start, stop), at, value in zip(outside, (known[0], known[-1]), (values[0], values[-1]), strict=True):
            table[start:stop] = value * shape[start:stop] / self._shape(at)
        table[0] = 0.0
        found: list[float] = table.tolist()
        return found


class StepCosts:
    """Pass costs by the length of the contexts. Owned by the engine's thread."""

    def __init__(self, slope: float, n_most: int) -> None:
        self._slope = slope
        self._n_most = min(n_most, NODES[-1])
        self._by_context: dict[int, PassCosts] = {}

    def of(self, n_context: int) -> PassCosts | None:
        """The costs beside contexts of about `n_context` cells, or the nearest that are known; None: none are."""
        bucket = _bucket(n_context)
        found = self._by_context.get(bucket)
        if found is None and self._by_context:
            found = self._by_context[min(self._by_context, key=lambda known: abs(known - bucket))]
        return found

    def observe(self, passes: Seq[int], n_context: int, seconds: float) -> None:
        """A step of these passes took so many seconds. `n_context`: the mean of its sequences' cells."""
        bucket = _bucket(n_context)
        costs = self._by_context.get(bucket)
        if costs is None:
            costs = self._by_context[bucket] = PassCosts(self._slope, self._n_most)
        costs.observe(passes, max(seconds, 1e-9))


def _bucket(n_context: int) -> int:
    """Contexts up to 512 cells, then to the double, and so on."""
    return max(n_context - 1, 0).bit_length() if n_context > 512 else 9


def _nearest(rows: int) -> int:
    at = min(bisect_left(NODES, rows), len(NODES) - 1)
    return NODES[at] if NODES[at] == rows or at == 0 or NODES[at] - rows <= rows - NODES[at - 1] else NODES[at - 1]
