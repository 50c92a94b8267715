"""Saving, restoring and erasing slots, once they are idle. Files are read and written beside the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.engine.engine import Engine
from llamabox.engine.slot import SlotState
from llamabox.errors import InvalidRequest, LlamaboxError, Unavailable, to_wire
from llamabox.workers.protocol import Call, Reply
from llamabox.workers.text import slot_file
from llamabox.workers.wire import path_of

METHODS = ("slot_save", "slot_restore", "slot_erase")

MAX_WAITING = 256
"""Calls that may wait for busy slots: each step looks at them all."""


@dataclass(frozen=True, slots=True)
class ReadSlot:
    """A slot file that was read and may go into its slot."""

    call: Call
    state: SlotState
    n_read: int
    started: float


class SlotCalls:
    """Owned by the loop's thread. `send` and `later` may be called from any thread; `later` hands back a ReadSlot.

    `key` is slot_file.model_key, `adapters` are the digests of the LoRA adapters by id. `files` reads and writes.
    """

    def __init__(
        self,
        engine: Engine,
        key: bytes,
        adapters: Sequence[bytes],
        n_vocab: int,
        files: Executor,
        send: Callable[[Reply], None],
        later: Callable[[ReadSlot], None],
    ) -> None:
        self._engine = engine
        self._key = key
        self._adapters = adapters
        self._n_vocab = n_vocab
        self._files = files
        self._send = send
        self._later = later
        self._waiting: list[Call | ReadSlot] = []

    def take(self, task: Call | ReadSlot) -> None:
        """Do it now, or as soon as `retry` finds the slot idle."""
        if isinstance(task, Call) and task.method == "slot_restore":
            self._beside(task, self._read, task, time.perf_counter())
        elif isinstance(task, Call) and len(self._waiting) >= MAX_WAITING:
            refusal = Unavailable(f"{MAX_WAITING} slot actions wait for busy slots already: try again")
            self._send(Reply(task.call_id, error=to_wire(refusal)))
        else:
            self._waiting.append(task)
            self.retry()

    def retry(self) -> None:
        """Do what has waited for slots that are idle by now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            call = task if isinstance(task, Call) else task.call
            if self._engine.cache.slots[call.arguments["id_slot"]].is_busy:
                self._waiting.append(task)
            else:
                self._do(task)

    def _do(self, task: Call | ReadSlot) -> None:
        if isinstance(task, ReadSlot):
            self._answer(task.call, self._restore, task)
        elif task.method == "slot_erase":
            self._answer(task, self._erase, task.arguments["id_slot"])
        else:
            started = time.perf_counter()
            slot = self._engine.cache.slots[task.arguments["id_slot"]]
            self._beside(task, self._write, task, self._engine.cache.state(slot), started)

    def _erase(self, id_slot: int) -> dict[str, Any]:
        slot = self._engine.cache.slots[id_slot]
        n_erased = len(slot.resident)
        self._engine.cache.clear(slot)
        return {"n_erased": n_erased}

    def _write(self, call: Call, state: SlotState, started: float) -> dict[str, Any]:
        n_written = slot_file.write(Path(path_of(call.arguments["path"])), self._key, state, self._adapters)
        return {"n_saved": len(state.tokens), "n_written": n_written, "ms": (time.perf_counter() - started) * 1e3}

    def _read(self, call: Call, started: float) -> None:
        state, n_read = slot_file.read(Path(path_of(call.arguments["path"])), self._key, self._n_vocab, self._adapters)
        self._later(ReadSlot(call, state, n_read, started))

    def _restore(self, task: ReadSlot) -> dict[str, Any]:
        cache = self._engine.cache
        n_tokens = len(task.state.tokens)
        if n_tokens > cache.n_ctx:
            raise InvalidRequest(
                f"Unable to restore slot: it holds {n_tokens} tokens, more than the slot's context of {cache.n_ctx}"
            )
        if not cache.restore(cache.slots[task.call.arguments["id_slot"]], task.state):
            raise InvalidRequest("Unable to restore slot: its state does not fit into this server's KV memory")
        milliseconds = (time.perf_counter() - task.started) * 1e3
        return {"n_restored": n_tokens, "n_read": task.n_read, "ms": milliseconds}

    def _beside(self, call: Call, work: Callable[..., Any], *arguments: object) -> None:
        self._files.submit(self._answer, call, work, *arguments)

    def _answer(self, call: Call, work: Callable[..., Any], *arguments: object) -> None:
        """Send what `work` returns, or its error; nothing yet where it returns None."""
        try:
            value = work(*arguments)
        except LlamaboxError as error:
            self._send(Reply(call.call_id, error=to_wire(error)))
        else:
            if value is not None:
                self._send(Reply(call.call_id, value=value))
