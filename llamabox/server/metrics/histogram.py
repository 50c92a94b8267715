"""Times counted by bucket, for GET /metrics."""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily, Metric


class Histogram:
    """Counts by bucket. Not prometheus-client's own, whose lock and labels cost several times as much at each token."""

    def __init__(self, name: str, help_: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help_
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """`times` occurrences of the same value."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._sum += seconds * times

    def family(self) -> Metric:
        """The histogram as prometheus-client's registry wants it."""
        return self.add_to(HistogramMetricFamily(self._name, self._help, labels=()), ())

    def add_to(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> HistogramMetricFamily:
        """The family with these counts under `labels`. Counts accumulate over the buckets."""
        buckets = []
        n_up_to = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            n_up_to += count
            buckets.append((bound, n_up_to))
        family.add_metric(labels, buckets, self._sum)
        return family
