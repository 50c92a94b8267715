"""The text worker's loop: take in what came, do a step, send what it brought forth."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from llamabox.engine.engine import Engine
from llamabox.engine.events import Activity, Failed
from llamabox.engine.request import Request
from llamabox.errors import LlamaboxError, NotSupported, to_wire
from llamabox.wire.common import Shutdown
from llamabox.wire.frames import Message
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Abort, Call, Embed, Reply, Step, Submit, SubmitAll
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.text.calls import QuickCalls
from llamabox.workers.text.embedding.desk import EmbeddingDesk
from llamabox.workers.text.embedding.lanes import Computed
from llamabox.workers.text.embedding.sharing import Sharing
from llamabox.workers.text.grammars.desk import GrammarDesk
from llamabox.workers.text.intake import Intake, Passages
from llamabox.workers.text.long_texts import LongTexts, Text, is_long
from llamabox.workers.text.slots.calls import METHODS, FileDone, SlotCalls

logger = logging.getLogger(__name__)

Task = Request | Passages | Computed | Abort | Call | Shutdown | FileDone
"""What the reader thread hands to the loop."""


class Reader:
    """The thread that receives. Tokenising and vocabulary calls happen beside the decode that is running.

    What is long has a thread of its own: an abort or a short prompt must not wait for it.
    """

    def __init__(self, channel: WorkerEnd, stopping: threading.Event, pulse: Pulse) -> None:
        """`stopping` is set when Shutdown comes, and by whoever else ends this process in order."""
        self._channel = channel
        self._pulse = pulse
        self._stopping = stopping
        self._intake: Intake | None = None
        self._calls: QuickCalls | None = None
        self._grammars: GrammarDesk | None = None
        self.tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._long_texts = LongTexts(self._prepare, pulse)
        self._thread = threading.Thread(target=self._run, name="channel reader", daemon=True)

    def start(self) -> None:
        """Begin to receive. While nothing serves yet, Shutdown and the end of the channel end the process."""
        self._thread.start()
        self._long_texts.start()

    def serve(self, intake: Intake, calls: QuickCalls, grammars: GrammarDesk) -> None:
        """From now on requests are taken in. Called before Ready is sent."""
        self._intake, self._calls, self._grammars = intake, calls, grammars

    def refuse(self, request_id: str, error: LlamaboxError) -> None:
        """Answer a request that the engine does not get. From any thread."""
        self._channel.send(Step([Failed(request_id, 0, to_wire(error))]))

    def _run(self) -> None:
        while (message := self._channel.receive()) is not None:
            with self._pulse.work("reading a message"):
                self._take(message)
        if not self._stopping.is_set():  # else the process is about to end with a code of its own
            # The server process is gone: nobody is left to answer, and a step in native code cannot be waited for.
            os._exit(0)

    def _take(self, message: Message) -> None:
        match message:
            case Submit() | Embed() | Call() if self._takes_long(message):
                self._long_texts.put(message)
            case Submit() | Embed() | Call():
                self._prepare(message)()
            case SubmitAll():
                take = self._long_texts.put if self._takes_long(message) else self._take
                for submit in message.submits:
                    take(submit)
            case Abort():
                self._long_texts.abort(message.request_id)
                if self._grammars is not None:
                    self._grammars.forget(message.request_id)
                self.tasks.put(message)
            case Shutdown() if self._intake is None:
                os._exit(0)
            case Shutdown():
                self._stopping.set()
                self.tasks.put(message)
            case _:
                logger.error("a text worker has no use for a %s message", type(message).__name__)

    def _takes_long(self, message: Text | SubmitAll) -> bool:
        assert self._intake is not None, "a request before Ready"
        return is_long(message) or (
            isinstance(message, Submit | SubmitAll) and not self._intake.is_known(message.params)
        )

    def _prepare(self, message: Text) -> Callable[[], None]:
        """Does what needs the vocabulary; the function returned hands on what came of it."""
        match message:
            case Submit():
                return self._request(message)
            case Embed():
                return self._passages(message)
        return self._answer(message)

    def _passages(self, embed: Embed) -> Callable[[], None]:
        assert self._intake is not None, "a request before Ready"
        try:
            return partial(self.tasks.put, self._intake.passages(embed))
        except LlamaboxError as error:
            return partial(self.refuse, embed.request_id, error)

    def _request(self, submit: Submit) -> Callable[[], None]:
        assert self._intake is not None, "a request before Ready"
        assert self._grammars is not None
        try:
            request = self._intake.request(submit)
        except LlamaboxError as error:
            return partial(self.refuse, submit.request_id, error)
        has_grammar = submit.params.grammar or submit.params.json_schema
        return partial(self._grammars.take if has_grammar else self.tasks.put, request)

    def _answer(self, call: Call) -> Callable[[], None]:
        assert self._calls is not None, "a call before Ready"
        if call.method in METHODS:
            return lambda: self.tasks.put(call)
        method = self._calls.find(call.method)
        try:
            if method is None:
                raise NotSupported(f"the text worker knows no call {call.method!r}")
            reply = Reply(call.call_id, value=method(**call.arguments))
        except LlamaboxError as error:
            reply = Reply(call.call_id, error=to_wire(error))
        return lambda: self._channel.send(reply)


class Loop:
    """Runs the engine on the thread that calls `run`, which must be the one that made the context."""

    def __init__(
        self,
        channel: WorkerEnd,
        reader: Reader,
        engine: Engine,
        slots: SlotCalls,
        pulse: Pulse,
        embedding: EmbeddingDesk | None = None,
        *,
        has_spare_core: bool = False,
    ) -> None:
        """With a spare core a step's events are sent beside the next decode.

        Without one that would cost more than it saves: a thread that wakes up takes a core from the decode that has
        just begun. Measured with two threads on two cores: one stream 3 % slower, eight as fast.
        """
        self._channel = channel
        self._has_spare_core = has_spare_core
        self._emit = 0.0  # seconds that the last events took to go
        self._tasks = reader.tasks
        self._engine = engine
        self._slots = slots
        self._pulse = pulse
        self._embedding = embedding
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
        """Do all tasks at hand; wait for one when there is nothing else to do."""
        self._slots.retry()
        if self._embedding is not None:
            self._embedding.begin()
        self._await_work()
        while not self._stopping:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            self._do(task)

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
            return self._tasks.get()

    def _do_within(self, seconds: float) -> None:
        """Do the next task if it comes in time: until then all that run keep to a speed limit."""
        try:
            task = self._tasks.get(timeout=seconds)
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
            case Computed():
                assert self._embedding is not None
                self._embedding.take(task, self._engine.activity())
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
