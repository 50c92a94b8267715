"""Embedding in the text worker's loop: requests in, steps, vectors out."""

from __future__ import annotations

from collections.abc import Sequence

from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.events import Activity, Event, Failed, Vector
from llamabox.wire.text import Step, Vectors
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.text.embedding.lanes import LaneDone, Lanes
from llamabox.workers.text.intake import Passages


class EmbeddingDesk:
    """Runs an embedder, itself or by lanes, and sends its vectors. All methods are the engine's thread's."""

    def __init__(self, embedder: Embedder, channel: WorkerEnd, lanes: Lanes | None = None) -> None:
        """Without lanes `step` computes. With lanes nothing but these may compute, at any time."""
        self._embedder = embedder
        self._channel = channel
        self._lanes = lanes

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing for `step` to do."""
        return self._lanes is not None or self._embedder.is_idle

    def begin(self) -> None:
        """Give waiting passages to the lanes."""
        if self._lanes is not None:
            self._lanes.begin()

    def take(self, computed: LaneDone, engine: Activity) -> None:
        """A lane's batch is done."""
        assert self._lanes is not None
        self._lanes.finished(computed.job)
        made = self._embedder.finish(computed.job, computed.outcome)
        self._send(made, self._embedder.activity(engine))

    def close(self) -> None:
        """End the lanes. Must come before their contexts are closed."""
        if self._lanes is not None:
            self._lanes.close()

    def submit(self, part: Passages) -> None:
        """Take in passages, perhaps more of a request that is known already."""
        self._send(self._embedder.submit(part.passages, part.n_left, part.with_media), None)

    def abort(self, request_id: str) -> None:
        self._embedder.abort(request_id)

    def activity(self, engine: Activity) -> Activity:
        """The whole worker's activity, given the engine's."""
        return self._embedder.activity(engine)

    def step(self, engine: Activity, seconds: float | None) -> None:
        """Compute one batch, which should last `seconds` at most, and send its vectors."""
        made = self._embedder.step(seconds)
        self._send(made, self._embedder.activity(engine))

    def _send(self, made: Sequence[Vector | Failed], activity: Activity | None) -> None:
        vectors = [one for one in made if isinstance(one, Vector)]
        failed: list[Event] = [one for one in made if isinstance(one, Failed)]
        if vectors and activity is not None:
            self._channel.send(Vectors(vectors, activity))
        if failed:
            self._channel.send(Step(failed, activity))
