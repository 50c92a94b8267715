"""Saving, restoring and erasing slots, once they are idle. Another thread reads and writes the files."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamabox.engine.kv.slot import SlotState
from llamabox.engine.kv.slots import Slots
from llamabox.errors import LlamaboxError, Unavailable, to_wire
from llamabox.wire.questions import Answer, EraseSlot, Erasure, RestoreSlot, SaveSlot, SlotFile, SlotQuestion
from llamabox.wire.text import Call, Reply
from llamabox.workers.text.slots import file as slot_file
from llamabox.workers.text.slots.fingerprint import Keys

MAX_WAITING = 256
"""Calls that may wait for busy slots: each step looks at them all."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """The contents of a slot file."""

    state: SlotState
    n_read: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """What came of a job of the files' thread."""

    call: Call
    outcome: ReadState | memoryview | SlotFile | LlamaboxError  # a memoryview: memory for the state to be saved
    started: float


class SlotCalls:
    """Owned by the loop's thread; `send` and `later` may be called from any. `later` hands back a FileDone.

    A call waits unread until its slot is idle. One file at a time is read or written, from then until its state is in
    the slot or on disk: each takes as much memory as a state. Calls for one slot are done in the order they came in.

    Memory for a state to be saved is made ready on the files' thread, too: streams wait while a state is copied, and
    memory that is written for the first time costs some ten times what the copy does (80 MiB: 490 ms, 44 again).

    `keys` are those of this server's states, asked for on the thread of `files`, which reads and writes; `adapters` are
    the digests of the LoRA adapters by id.
    """

    def __init__(
        self,
        slots: Slots,
        keys: Callable[[], Keys],
        adapters: Sequence[bytes],
        n_vocab: int,
        files: Executor,
        send: Callable[[Reply], None],
        later: Callable[[FileDone], None],
    ) -> None:
        self._slots = slots
        self._keys = keys
        self._adapters = adapters
        self._n_vocab = n_vocab
        self._files = files
        self._send = send
        self._later = later
        self._waiting: list[Call] = []
        self._at_work: Call | None = None  # whose file is read or written, or which waits for its slot
        self._next: FileDone | None = None  # with what it goes on as soon as its slot is idle
        self._holds_slot = False  # others wait for the slot of the call at work
        self._is_wanted = True  # the reply to the call at work

    def take(self, task: Call | FileDone) -> None:
        """Act on a call now, or as soon as `retry` finds its slot idle. A FileDone is acted on now."""
        if isinstance(task, FileDone):
            self._finish(task)
        elif len(self._waiting) >= MAX_WAITING:
            self._refuse(task, Unavailable(f"{MAX_WAITING} slot actions wait for busy slots already: try again"))
        else:
            self._waiting.append(task)
        self.retry()

    def abort(self, request_id: str) -> None:
        """The client of a call went away. Other ids are ignored."""
        self._waiting = [call for call in self._waiting if call.request_id != request_id]
        if self._at_work is not None and self._at_work.request_id == request_id:
            self._is_wanted = False
            if self._next is not None:
                self._end_work()

    def retry(self) -> None:
        """Act on calls whose slots are idle by now."""
        if self._next is not None and not self._is_busy(self._next.call) and not self._slots.must_wait:
            self._go_on(self._next)
        if not self._waiting:
            return
        held = {_slot(self._at_work)} if self._at_work is not None and self._holds_slot else set()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            needs_file = not isinstance(call.question, EraseSlot)
            if _slot(call) in held or self._is_busy(call) or (needs_file and self._at_work is not None):
                held.add(_slot(call))
                self._waiting.append(call)
            else:
                self._begin(call)
                if needs_file:
                    held.add(_slot(call))

    def _begin(self, call: Call) -> None:
        """The slot is idle, and where a file is needed none is at work."""
        started = time.perf_counter()
        match call.question:
            case EraseSlot(id_slot):
                self._reply(call, lambda: Erasure(self._slots.erase(id_slot)))
            case SaveSlot(id_slot):
                self._at_work, self._is_wanted, self._holds_slot = call, True, True
                self._files.submit(self._beside, call, started, written_memory, self._slots.n_bytes(id_slot))
            case RestoreSlot(_, path):
                self._at_work, self._is_wanted, self._holds_slot = call, True, True
                self._files.submit(self._beside, call, started, self._load, path)

    def _go_on(self, done: FileDone) -> None:
        """The slot is idle, and what the call at work needs is there."""
        self._next = None
        if isinstance(done.outcome, memoryview):
            assert isinstance(done.call.question, SaveSlot)
            state = self._slots.save(_slot(done.call), done.outcome)
            self._holds_slot = False
            path = done.call.question.path
            self._files.submit(self._beside, done.call, done.started, self._write, path, state, done.started)
        else:
            self._reply(done.call, lambda: self._restore(done))
            self._end_work()

    def _finish(self, done: FileDone) -> None:
        if self._is_wanted and isinstance(done.outcome, ReadState | memoryview):
            self._next = done
            return
        if isinstance(done.outcome, LlamaboxError):
            self._refuse(done.call, done.outcome)
        elif isinstance(done.outcome, SlotFile):
            self._send(Reply(done.call.call_id, done.outcome))
        self._end_work()

    def _end_work(self) -> None:
        self._at_work = self._next = None
        self._holds_slot = False

    def _write(self, path: str, state: SlotState, started: float) -> SlotFile:
        n_bytes = slot_file.write(Path(path), self._keys(), state, self._adapters)
        return SlotFile(len(state.cells), n_bytes, (time.perf_counter() - started) * 1e3)

    def _load(self, path: str) -> ReadState:
        return ReadState(*slot_file.read(Path(path), self._keys, self._n_vocab, self._adapters))

    def _restore(self, done: FileDone) -> SlotFile:
        assert isinstance(done.outcome, ReadState)
        state = done.outcome.state
        self._slots.restore(_slot(done.call), state)
        return SlotFile(len(state.cells), done.outcome.n_read, (time.perf_counter() - done.started) * 1e3)

    def _beside(self, call: Call, started: float, work: Callable[..., Any], *arguments: object) -> None:
        """Do `work` and hand back what comes of it. Runs on the files' thread."""
        try:
            outcome = work(*arguments)
        except LlamaboxError as error:
            outcome = error
        self._later(FileDone(call, outcome, started))

    def _reply(self, call: Call, work: Callable[[], Answer]) -> None:
        try:
            self._send(Reply(call.call_id, work()))
        except LlamaboxError as error:
            self._refuse(call, error)

    def _refuse(self, call: Call, error: LlamaboxError) -> None:
        self._send(Reply(call.call_id, error=to_wire(error)))

    def _is_busy(self, call: Call) -> bool:
        return self._slots.is_busy(_slot(call))


def written_memory(n_bytes: int) -> memoryview:
    """Memory that has been written to, so that the system has given all of it."""
    memory = np.empty(n_bytes, np.uint8)
    memory[:: mmap.PAGESIZE] = 0
    return memory.data


def _slot(call: Call) -> int:
    assert isinstance(call.question, SlotQuestion)
    return call.question.id_slot
