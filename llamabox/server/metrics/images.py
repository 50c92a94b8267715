"""Counts of a model that draws: images, steps and seconds, under llama-box's names."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from llamabox.imaging.events import Drawn
from llamabox.server.hosted.seams import ImageService
from llamabox.server.http.record import RequestRecord
from llamabox.server.metrics.histogram import Histogram

WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the histograms' buckets, seconds."""


class ImageMetrics:
    """One for each app. Belongs to the event loop; a scrape asks nothing of the worker."""

    def __init__(self, client: ImageService) -> None:
        self._client = client
        self._n_images = self._n_steps = 0
        self._prepare = self._sampling = 0.0  # seconds
        self._scraped = (0, 0.0)  # steps and their seconds, as of the last scrape
        self._queue = Histogram("llamabox:queue_seconds", "From a job's arrival to its turn.", WAITS)
        self._request = Histogram(
            "llamabox:request_seconds", "From a request's arrival to the end of its answer.", WAITS
        )
        client.on_drawn = self._drawn
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def waited(self, seconds: float) -> None:
        """A job's turn has come."""
        self._queue.observe(seconds)

    def answered(self, record: RequestRecord) -> None:
        """The last byte of an answer is out; one that drew nothing is not counted."""
        if "images" in record.notes:
            self._request.observe(time.perf_counter() - record.started)

    def scrape(self) -> bytes:
        """The text format. The rate is over the time since the last call."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All metrics, called by the registry on each scrape."""
        queue = self._client.queue
        n_steps, seconds = self._n_steps - self._scraped[0], self._sampling - self._scraped[1]
        self._scraped = (self._n_steps, self._sampling)
        for name, help_, value in (
            ("image_forward", "Number of images that were prepared.", self._n_images),
            ("image_forward_seconds", "Time of preparing images.", self._prepare),
            ("image_reverse", "Number of sampling steps.", self._n_steps),
            ("image_reverse_seconds", "Time of sampling.", self._sampling),
            ("images_drawn", "Number of images that were drawn.", self._n_images),
            ("worker_restarts", "Starts of the image worker after the first.", self._client.n_restarts),
        ):
            yield CounterMetricFamily(f"llamabox:{name}", help_, value)
        yield GaugeMetricFamily(
            "llamabox:image_reverse_steps_per_second",
            "Average sampling throughput in steps/s.",
            n_steps / seconds if seconds else 0.0,
        )
        yield GaugeMetricFamily("llamacpp:requests_processing", "Number of requests processing.", queue.n_running)
        yield GaugeMetricFamily("llamacpp:requests_deferred", "Number of requests deferred.", queue.n_waiting)
        for histogram in (self._queue, self._request):
            yield histogram.family()

    def _drawn(self, event: Drawn) -> None:
        self._n_images += 1
        self._n_steps += event.steps
        self._prepare += event.prepare_ms / 1e3
        self._sampling += event.sampling_ms / 1e3
