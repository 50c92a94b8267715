"""Saving, restoring and erasing slots, once they are idle. Files are read and written beside the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.engine.engine import Engine
from llamabox.engine.kv.slot import SlotState
from llamabox.errors import InvalidRequest, LlamaboxError, Unavailable, to_wire
from llamabox.wire.codec import path_of
from llamabox.wire.text import Call, Reply
from llamabox.workers.text.slots import file as slot_file
from llamabox.workers.text.slots.fingerprint import Keys

METHODS = ("slot_save", "slot_restore", "slot_erase")

MAX_WAITING = 256
"""Calls that may wait for busy slots: each step looks at them all."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """What a slot file holds."""

    state: SlotState
    n_read: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """What came of reading or writing a slot file: a state, the reply to a save, or why not."""

    call: Call
    outcome: ReadState | dict[str, Any] | LlamaboxError
    started: float


class SlotCalls:
    """Owned by the loop's thread; `send` and `later` may be called from any. `later` hands back a FileDone.

    A call waits unread until its slot is idle. One file at a time is read or written, from then until its state is in
    the slot or on disk: each takes as much memory as a state. Calls for one slot are done in the order they came in.

    `keys` are those of this server's states, asked for on the thread of `files`, which reads and writes; `adapters` are
    the digests of the LoRA adapters by id.
    """

    def __init__(
        self,
        engine: Engine,
        keys: Callable[[], Keys],
        adapters: Sequence[bytes],
        n_vocab: int,
        files: Executor,
        send: Callable[[Reply], None],
        later: Callable[[FileDone], None],
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._adapters = adapters
        self._n_vocab = n_vocab
        self._files = files
        self._send = send
        self._later = later
        self._waiting: list[Call] = []
        self._at_work: Call | None = None  # whose file is read or written, or whose state waits for its slot
        self._read: FileDone | None = None  # that state
        self._is_wanted = True  # the reply to the call at work

    def take(self, task: Call | FileDone) -> None:
        """Do it now, or as soon as `retry` finds the slot idle."""
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
            if self._read is not None:
                self._end_work()

    def retry(self) -> None:
        """Do what has waited for slots that are idle by now."""
        if self._read is not None and not self._is_busy(self._read.call):
            self._reply(self._read.call, self._restore, self._read)
            self._end_work()
        if not self._waiting:
            return
        held = {self._id_slot(self._at_work)} if self._at_work and self._at_work.method == "slot_restore" else set()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            needs_file = call.method != "slot_erase"
            if self._id_slot(call) in held or self._is_busy(call) or (needs_file and self._at_work is not None):
                held.add(self._id_slot(call))
                self._waiting.append(call)
            else:
                self._begin(call)
                if call.method == "slot_restore":
                    held.add(self._id_slot(call))

    def _begin(self, call: Call) -> None:
        """The slot is idle, and where a file is needed none is at work."""
        if call.method == "slot_erase":
            self._reply(call, self._erase, self._id_slot(call))
            return
        self._at_work, self._is_wanted = call, True
        started = time.perf_counter()
        if call.method == "slot_restore":
            self._files.submit(self._beside, call, started, self._load, call)
        else:
            state = self._engine.cache.state(self._engine.cache.slots[self._id_slot(call)])
            self._files.submit(self._beside, call, started, self._write, call, state, started)

    def _finish(self, done: FileDone) -> None:
        if self._is_wanted and isinstance(done.outcome, ReadState):
            self._read = done
            return
        if isinstance(done.outcome, LlamaboxError):
            self._refuse(done.call, done.outcome)
        elif isinstance(done.outcome, dict):
            self._send(Reply(done.call.call_id, value=done.outcome))
        self._end_work()

    def _end_work(self) -> None:
        self._at_work = self._read = None

    def _erase(self, id_slot: int) -> dict[str, Any]:
        slot = self._engine.cache.slots[id_slot]
        n_erased = len(slot.resident)
        self._engine.cache.clear(slot)
        return {"n_erased": n_erased}

    def _write(self, call: Call, state: SlotState, started: float) -> dict[str, Any]:
        n_written = slot_file.write(Path(path_of(call.arguments["path"])), self._keys(), state, self._adapters)
        return {"n_saved": len(state.cells), "n_written": n_written, "ms": (time.perf_counter() - started) * 1e3}

    def _load(self, call: Call) -> ReadState:
        path = Path(path_of(call.arguments["path"]))
        return ReadState(*slot_file.read(path, self._keys, self._n_vocab, self._adapters))

    def _restore(self, done: FileDone) -> dict[str, Any]:
        assert isinstance(done.outcome, ReadState)
        cache, state = self._engine.cache, done.outcome.state
        n_tokens = len(state.cells)
        if n_tokens > cache.n_ctx:
            raise InvalidRequest(
                f"Unable to restore slot: it holds {n_tokens} tokens, more than the slot's context of {cache.n_ctx}"
            )
        if not cache.restore(cache.slots[self._id_slot(done.call)], state):
            raise InvalidRequest("Unable to restore slot: its state does not fit into this server's KV memory")
        milliseconds = (time.perf_counter() - done.started) * 1e3
        return {"n_restored": n_tokens, "n_read": done.outcome.n_read, "ms": milliseconds}

    def _beside(self, call: Call, started: float, work: Callable[..., Any], *arguments: object) -> None:
        """On the files' thread."""
        try:
            outcome = work(*arguments)
        except LlamaboxError as error:
            outcome = error
        self._later(FileDone(call, outcome, started))

    def _reply(self, call: Call, work: Callable[..., dict[str, Any]], *arguments: object) -> None:
        try:
            self._send(Reply(call.call_id, value=work(*arguments)))
        except LlamaboxError as error:
            self._refuse(call, error)

    def _refuse(self, call: Call, error: LlamaboxError) -> None:
        self._send(Reply(call.call_id, error=to_wire(error)))

    def _is_busy(self, call: Call) -> bool:
        return self._engine.cache.slots[self._id_slot(call)].is_busy

    @staticmethod
    def _id_slot(call: Call) -> int:
        id_slot: int = call.arguments["id_slot"]
        return id_slot
