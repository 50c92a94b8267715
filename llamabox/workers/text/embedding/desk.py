"""Embedding in the worker: a context of its own over the loaded model, and the step of it that the loop takes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from llamabox.bindings.context import Context, ContextParams, Pooling
from llamabox.bindings.model import Model
from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.embedding.rooms import TILE
from llamabox.engine.events import Activity, Event, Failed, Vector
from llamabox.wire.text import Step, Vectors
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.text.embedding.lanes import Computed, Lanes
from llamabox.workers.text.embedding.pooler import can_split
from llamabox.workers.text.intake import Passages

logger = logging.getLogger(__name__)

N_SEQUENCES = 64
"""Passages in a batch at most, with the filling of LlamaPooler."""

N_STATES = 8
"""The same for models that keep a state for each, whatever its length."""

QUICK_ROWS = 128
"""Tokens from which on a CPU computes no faster per token: a MiniLM on two cores made 54 vectors a second of texts with
62 tokens by ones, 74 by twos, 76 by eights. Smaller batches let others in sooner."""


def open_context(model: Model, params: ContextParams, pooling: Pooling, *, n_ctx: int, quick_rows: int) -> Context:
    """A context that makes vectors of passages of up to `n_ctx` tokens. `params`: those of one that generates.

    A passage is computed in one piece, which for all but causal models with the last token's vector is the only way.
    Those may be cut: libllama computes the logits of every row as well, and has to keep them somewhere.
    Raises ContextError.
    """
    pooling = settle_pooling(model, pooling)
    n_seq_max = N_STATES if model.is_recurrent or model.is_hybrid else N_SEQUENCES
    n_rows = max(quick_rows, TILE, params.n_seq_max)
    settings = replace(
        params,
        n_seq_max=n_seq_max,
        kv_unified=True,
        embeddings=True,
        pooling=pooling,
    )

    def make(n_batch: int) -> Context:
        n_batch = -(-n_batch // n_seq_max) * n_seq_max  # else libllama aborts as it reserves memory for a full batch
        return Context(model, replace(settings, n_ctx=max(n_ctx, n_batch), n_batch=n_batch, n_ubatch=n_batch))

    if model.is_causal and pooling in (Pooling.LAST, Pooling.RANK):
        context = make(n_rows)
        if can_split(context):
            return context
        context.close()
    return make(max(n_ctx, n_rows))


def settle_pooling(model: Model, asked: Pooling) -> Pooling:
    """Where neither the user nor the model says how vectors of tokens become one, a way that is of use.

    In a causal model the last token alone has seen all others. Raises nothing: libllama knows what a model can do.
    """
    if asked is not Pooling.UNSPECIFIED or model.meta(f"{model.meta('general.architecture')}.pooling_type") is not None:
        return asked
    pooling = Pooling.LAST if model.is_causal else Pooling.MEAN
    logger.info("the model does not say how to pool: --pooling %s", pooling)
    return pooling


class EmbeddingDesk:
    """The embedder, who computes its batches, and where its vectors go. On the engine's thread."""

    def __init__(self, embedder: Embedder, channel: WorkerEnd, lanes: Lanes | None = None) -> None:
        """Without lanes, `step` computes; with them nothing else may, at any time."""
        self._embedder = embedder
        self._channel = channel
        self._lanes = lanes

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing for `step` to do."""
        return self._lanes is not None or self._embedder.is_idle

    def begin(self) -> None:
        """Let the lanes have what waits."""
        if self._lanes is not None:
            self._lanes.begin()

    def take(self, computed: Computed, engine: Activity) -> None:
        """A lane's batch is done."""
        assert self._lanes is not None
        self._lanes.finished(computed.job)
        made = self._embedder.finish(computed.job, computed.outcome)
        self._send(made, self._embedder.activity(engine))

    def close(self) -> None:
        """Must come before the contexts'."""
        if self._lanes is not None:
            self._lanes.close()

    def submit(self, part: Passages) -> None:
        """More of a request."""
        self._send(self._embedder.submit(part.passages, part.n_left), None)

    def abort(self, request_id: str) -> None:
        self._embedder.abort(request_id)

    def activity(self, engine: Activity) -> Activity:
        """The whole worker's."""
        return self._embedder.activity(engine)

    def step(self, engine: Activity, seconds: float | None) -> None:
        """One batch, which should last `seconds` at most."""
        made = self._embedder.step(seconds)
        self._send(made, self._embedder.activity(engine))

    def _send(self, made: Sequence[Vector | Failed], activity: Activity | None) -> None:
        vectors = [one for one in made if isinstance(one, Vector)]
        failed: list[Event] = [one for one in made if isinstance(one, Failed)]
        if vectors and activity is not None:
            self._channel.send(Vectors(vectors, activity))
        if failed:
            self._channel.send(Step(failed, activity))
