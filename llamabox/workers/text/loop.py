"""The text worker's loop: do the tasks that came, compute a step, send its events."""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Callable

from llamabox.engine.engine import Engine
from llamabox.engine.events import Activity, Failed
from llamabox.engine.request import Request
from llamabox.errors import LlamaboxError, to_wire
from llamabox.wire.common import Shutdown
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Abort, Call, Step
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.text.embedding.desk import EmbeddingDesk
from llamabox.workers.text.embedding.lanes import LaneDone
from llamabox.workers.text.embedding.sharing import Sharing
from llamabox.workers.text.grammars.coming import GrammarCame
from llamabox.workers.text.intake import Passages
from llamabox.workers.text.media.desk import EncodingDesk
from llamabox.workers.text.media.encoder import EncodingsDone
from llamabox.workers.text.reader import Task
from llamabox.workers.text.slots.calls import FileDone, SlotCalls

logger = logging.getLogger(__name__)

MOST_TASKS = 0.01
"""Seconds after which further tasks wait for the next step: a thousand prompts of one request take 50 ms."""


class TextLoop:
    """Runs the engine on the thread that calls `run`, which must be the one that made the context."""

    def __init__(
        self,
        channel: WorkerEnd,
        tasks: queue.SimpleQueue[Task],
        engine: Engine,
        slots: SlotCalls,
        pulse: Pulse,
        embedding: EmbeddingDesk | None = None,
        media: EncodingDesk | None = None,
        *,
        has_spare_core: bool = False,
        at_rest: Callable[[], None] | None = None,
    ) -> None:
        """`at_rest` is called once, the first time that there is nothing to do, and must begin work of another thread.

        With a spare core a step's events are sent beside the next decode.

        Without one that would cost more than it saves: a thread that wakes up takes a core from the decode that has
        just begun. Measured with two threads on two cores: one stream 3 % slower, eight as fast.
        """
        self._channel = channel
        self._has_spare_core = has_spare_core
        self._at_rest = at_rest
        self._emit = 0.0  # seconds that the last events took to go
        self._tasks = tasks
        self._engine = engine
        self._slots = slots
        self._pulse = pulse
        self._embedding = embedding
        self._media = media
        self._sharing = Sharing()
        self._stopping = False
        self._told = Activity()

    def run(self) -> None:
        """Serve until Shutdown."""
        while not self._stopping:
            self._take_in()
            with self._pulse.work("a step", computes=True):
                self._step()

    def _step(self) -> None:
        if self._embedding is None or self._embedding.is_idle:
            self._generate(contested=False)
        elif self._engine.is_idle or self._engine.rest() > 0:
            self._embed(self._embedding, contested=False)
        elif self._sharing.embeds_next:
            self._embed(self._embedding, contested=True)
        else:
            self._generate(contested=True)

    def _generate(self, *, contested: bool) -> None:
        start = time.perf_counter()
        result = self._engine.step()
        activity = result.activity if self._embedding is None else self._embedding.activity(result.activity)
        if result.events or activity != self._told:
            self._told = activity
            emit = self._channel.posting if self._has_spare_core else self._emit
            self._tell(Step(result.events, activity, result.times and result.times.with_emit(emit)))
        self._sharing.generated(time.perf_counter() - start, contested=contested)

    def _embed(self, embedding: EmbeddingDesk, *, contested: bool) -> None:
        start = time.perf_counter()
        embedding.step(self._engine.activity(), self._sharing.budget if contested else None)
        self._sharing.embedded(time.perf_counter() - start, contested=contested)

    def _tell(self, step: Step) -> None:
        if self._has_spare_core:
            self._channel.post(step)
            return
        start = time.perf_counter()
        self._channel.send(step)
        self._emit = time.perf_counter() - start

    def _take_in(self) -> None:
        """Do the tasks at hand, but let no stream wait long for that; wait for one when there is nothing else to do."""
        self._slots.retry()
        if self._embedding is not None:
            self._embedding.begin()
        self._await_work()
        until = time.perf_counter() + MOST_TASKS
        while not self._stopping:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            self._do(task)
            if time.perf_counter() >= until and not self._engine.is_idle:
                return

    def _await_work(self) -> None:
        """Where there is nothing to compute: wait for the next task, and do it."""
        if self._embedding is not None and not self._embedding.is_idle:
            return
        if self._engine.is_idle:
            self._do(self._next_when_idle())
        elif (seconds := self._engine.rest()) > 0:
            self._do_within(seconds)

    def _next_when_idle(self) -> Task:
        try:
            return self._tasks.get_nowait()
        except queue.Empty:
            for problem in self._engine.check_integrity():
                logger.error("KV ledger: %s", problem)
            at_rest, self._at_rest = self._at_rest, None
            if at_rest is not None:
                at_rest()
            return self._tasks.get()

    def _do_within(self, seconds: float) -> None:
        """Do the next task if it comes in time: until then all that run keep to a speed limit, or wait."""
        try:
            task = self._tasks.get(timeout=None if seconds == math.inf else seconds)
        except queue.Empty:
            return
        self._do(task)

    def _do(self, task: Task) -> None:
        with self._pulse.work("a task between two steps", computes=True):
            self._do_now(task)

    def _do_now(self, task: Task) -> None:
        match task:
            case Request():
                self._submit(task)
            case Passages():
                assert self._embedding is not None, "the server embeds nothing without --embeddings"
                self._embedding.submit(task)
            case LaneDone():
                assert self._embedding is not None
                self._embedding.take(task, self._engine.activity())
            case EncodingsDone():
                assert self._media is not None
                self._media.finished(task)
            case GrammarCame():  # the next step looks for one that is ready
                if task.error is not None:
                    self._engine.refuse(task.request_id, task.error)
            case Abort():
                self._engine.abort(task.request_id)
                self._slots.abort(task.request_id)
                if self._embedding is not None:
                    self._embedding.abort(task.request_id)
            case Call() | FileDone():
                self._slots.take(task)
            case Shutdown():
                self._stopping = True

    def _submit(self, request: Request) -> None:
        try:
            self._engine.submit(request)
        except LlamaboxError as error:
            self._channel.send(Step([Failed(request.request_id, 0, to_wire(error))]))
