"""Counts of a language model: the worker's under llama.cpp's names, and how long requests take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from llamabox.engine.events import Activity, Finished, StepTimes, Timings
from llamabox.server.generation.timings import rate
from llamabox.server.hosted.seams import TextService
from llamabox.server.http.record import RequestRecord
from llamabox.server.metrics.histogram import Histogram

GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
STEPS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.00025, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.00125, 0.0015, 0.002),
    *(0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 5.0),
)
WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histograms' buckets, seconds."""


class StepHistograms:
    """The time of the engine's steps by stage. `host` is all that the next llama_decode waits for."""

    STAGES = ("schedule", "decode", "sample", "update", "emit", "host")

    def __init__(self) -> None:
        self._stages = {stage: Histogram("", "", STEPS) for stage in self.STAGES}

    def observe(self, times: StepTimes) -> None:
        for stage, histogram in self._stages.items():
            histogram.observe(getattr(times, stage))

    def family(self) -> Metric:
        """For the registry."""
        help_ = "One step of the engine, by stage; host: all that the next decode waits for."
        family = HistogramMetricFamily("llamabox:step_seconds", help_, labels=("stage",))
        for stage, histogram in self._stages.items():
            histogram.add_to(family, (stage,))
        return family


class TextMetrics:
    """One for each app. Belongs to the event loop; a scrape asks nothing of the worker."""

    def __init__(self, client: TextService) -> None:
        self._client = client
        self._scraped = Activity()  # as of the last scrape
        self._first_token = Histogram(
            "llamabox:time_to_first_token_seconds", "From a request's arrival to its first token.", WAITS
        )
        self._gap = Histogram("llamabox:inter_token_seconds", "Between two tokens of a sequence.", GAPS)
        self._queue = Histogram("llamabox:queue_seconds", "From a sequence's arrival to its slot.", WAITS)
        self._request = Histogram(
            "llamabox:request_seconds", "From a request's arrival to the end of its answer.", WAITS
        )
        self._steps = StepHistograms()
        client.on_step = self._steps.observe
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def began(self, record: RequestRecord) -> None:
        """A request's first token is there."""
        assert record.first_token is not None
        self._first_token.observe(record.first_token - record.started)

    def said(self, before: Timings, now: Timings) -> None:
        """More tokens of a sequence: its times before them and with them. Tokens that come together had equal gaps."""
        n_gaps = now.predicted_n - (before.predicted_n or 1)
        if n_gaps > 0:
            self._gap.observe((now.predicted_ms - before.predicted_ms) / n_gaps / 1e3, n_gaps)

    def ended(self, event: Finished) -> None:
        """A sequence ended by itself."""
        self._queue.observe(event.timings.queue_ms / 1e3)

    def answered(self, record: RequestRecord) -> None:
        """The last byte of an answer is out; one that generated nothing is not counted."""
        if record.first_token is not None:
            self._request.observe(time.perf_counter() - record.started)

    def scrape(self) -> bytes:
        """The text format. The two rates are over the time since the last call."""
        # prometheus-client ends every counter's name in _total; llama-server's counter n_tokens_max does not.
        return generate_latest(self._registry) + _counter_text(
            "llamacpp:n_tokens_max", "Largest number of tokens seen in a slot.", self._client.activity.n_tokens_max
        )

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        now, before = self._client.activity, self._scraped
        self._scraped = now
        yield from _counters(now)
        yield from _draft_counters(now)
        yield from _media_counters(now)
        yield CounterMetricFamily(
            "llamabox:worker_restarts", "Starts of the text worker after the first.", self._client.n_restarts
        )
        yield from _gauges(now)
        info = self._client.info
        yield GaugeMetricFamily(
            "llamacpp:kv_cache_usage_ratio",
            "KV-cache usage. 1 means 100 percent usage.",
            now.n_resident / info.n_ctx_total if info is not None else 0.0,
        )
        yield GaugeMetricFamily(
            "llamabox:prefix_hit_ratio",
            "Prompt tokens reused from the cache, of all prompt tokens so far.",
            now.n_cached / max(now.n_cached + now.n_prompt, 1),
        )
        yield GaugeMetricFamily(
            "llamacpp:prompt_tokens_seconds",
            "Average prompt throughput in tokens/s.",
            rate(now.n_prompt - before.n_prompt, now.prompt_ms - before.prompt_ms),
        )
        yield GaugeMetricFamily(
            "llamacpp:predicted_tokens_seconds",
            "Average generation throughput in tokens/s.",
            rate(now.n_predicted - before.n_predicted, now.predicted_ms - before.predicted_ms),
        )
        for histogram in (self._first_token, self._gap, self._queue, self._request):
            yield histogram.family()
        yield self._steps.family()


def _counters(now: Activity) -> Iterator[Metric]:
    n_drafted, n_accepted = (sum(getattr(one, name) for one in now.drafts) for name in ("n_drafted", "n_accepted"))
    for name, help_, value in (
        ("prompt_tokens", "Number of prompt tokens processed.", now.n_prompt),
        ("prompt_tokens_cached", "Number of prompt tokens reused from the cache.", now.n_cached),
        ("prompt_seconds", "Prompt process time.", now.prompt_ms / 1e3),
        ("tokens_predicted", "Number of generation tokens processed.", now.n_predicted),
        ("tokens_predicted_seconds", "Predict process time.", now.predicted_ms / 1e3),
        ("tokens_drafted", "Number of speculative decoding tokens processed.", n_drafted),
        ("tokens_drafted_accepted", "Number of speculative decoding tokens to be accepted.", n_accepted),
        ("spec_decode_num_drafts", "Drafts that were verified.", sum(one.n_drafts for one in now.drafts)),
        ("spec_decode_num_draft_tokens", "Tokens of drafts that were verified.", n_drafted),
        ("spec_decode_num_accepted_tokens", "Tokens of drafts that were accepted.", n_accepted),
        ("n_decode", "Total number of llama_decode() calls.", now.n_decode),
    ):
        yield CounterMetricFamily(f"llamacpp:{name}", help_, value)


def _draft_counters(now: Activity) -> Iterator[Metric]:
    """What became of drafts, by the place in the draft as llama-server counts it, and by source."""
    at: Counter[int] = Counter()
    name, help_ = "llamabox:draft_tokens_accepted_at", "Tokens of drafts that were accepted, by source and place."
    by_place = CounterMetricFamily(name, help_, labels=("source", "position"))
    for one in now.drafts:
        for position, n_accepted in enumerate(one.accepted_at):
            by_place.add_metric((one.source, str(position)), n_accepted)
            at[position] += n_accepted
    help_ = "Tokens of drafts that were accepted, by their place in the draft."
    family = CounterMetricFamily("llamacpp:spec_decode_num_accepted_tokens_per_pos", help_, labels=("position",))
    for position, n_accepted in sorted(at.items()):
        family.add_metric((str(position),), n_accepted)
    yield from (family, by_place)
    for name, help_, field in (
        ("drafts", "Drafts that were verified, by source.", "n_drafts"),
        ("draft_tokens", "Tokens of drafts that were verified, by source.", "n_drafted"),
        ("draft_tokens_accepted", "Tokens of drafts that were accepted, by source.", "n_accepted"),
    ):
        family = CounterMetricFamily(f"llamabox:{name}", help_, labels=("source",))
        for one in now.drafts:
            family.add_metric((one.source,), getattr(one, field))
        yield family


def _media_counters(now: Activity) -> Iterator[Metric]:
    for name, help_, value in (
        ("media_encodings", "Chunks of images and sound that were encoded.", now.n_encoded),
        ("media_encode_seconds", "Time that encoding them took.", now.encode_ms / 1e3),
        ("media_cache_hits", "Chunks that were not encoded again for another request.", now.n_encode_hits),
    ):
        yield CounterMetricFamily(f"llamabox:{name}", help_, value)
    help_ = "Chunks of images and sound that wait for the encoder, or are in it."
    yield GaugeMetricFamily("llamabox:media_queued", help_, now.n_encoding)


def _gauges(now: Activity) -> Iterator[Metric]:
    for name, help_, value in (
        ("n_busy_slots_per_decode", "Average number of busy slots per llama_decode() call.", _ratio(now)),
        ("kv_cache_tokens", "KV-cache tokens.", now.n_resident),
        ("requests_processing", "Number of requests processing.", now.n_processing),
        ("requests_deferred", "Number of requests deferred.", now.n_waiting),
    ):
        yield GaugeMetricFamily(f"llamacpp:{name}", help_, value)


def _ratio(now: Activity) -> float:
    return now.n_busy / now.n_decode if now.n_decode else 0.0


def _counter_text(name: str, help_: str, value: int) -> bytes:
    return f"# HELP {name} {help_}\n# TYPE {name} counter\n{name} {value}\n".encode()
