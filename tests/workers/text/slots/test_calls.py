"""Slot actions wait unread until their slot is idle, and nobody's state is kept for a client that went away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from llamabox.wire.questions import EraseSlot, Erasure, RestoreSlot, SaveSlot
from llamabox.wire.text import Call, Reply
from llamabox.workers.text.slots import file as slot_file
from llamabox.workers.text.slots.calls import MAX_WAITING, SlotCalls
from llamabox.workers.text.slots.fingerprint import Keys
from tests.engine.driver import Driver, foreign_cells, request

KEYS = Keys(bytes(32), bytes(32))


class ByHand(Executor):
    """Does what it is given when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], Any]] = []

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.jobs.append(lambda: work(*arguments, **named))
        return Future()

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


class Desk:
    """Slot calls over an engine with a text in slot 0, and a file of it."""

    def __init__(self, folder: Path) -> None:
        self.driver = Driver(n_slots=2)
        self.driver.submit(request("first", tuple(range(1, 20)), n_predict=1, id_slot=0))
        self.driver.run()
        self.folder = folder
        self.files = ByHand()
        self.replies: list[Reply] = []
        self.done: list[Any] = []
        self.calls = SlotCalls(
            self.driver.engine.slots, lambda: KEYS, [], 1000, self.files, self.replies.append, self.done.append
        )
        slot_file.write(folder / "file", KEYS, self.driver.engine.cache.state(self.slots[0]))

    @property
    def slots(self) -> list[Any]:
        return self.driver.engine.cache.slots

    def ask(self, call_id: int, action: str, id_slot: int, name: str = "file") -> None:
        path = str(self.folder / name)
        questions = {
            "save": SaveSlot(id_slot, path),
            "restore": RestoreSlot(id_slot, path),
            "erase": EraseSlot(id_slot),
        }
        self.calls.take(Call(call_id, questions[action]))

    def read_and_write(self) -> None:
        self.files.run()
        done, self.done[:] = list(self.done), []
        for one in done:
            self.calls.take(one)

    def answered(self) -> list[int]:
        return [reply.call_id for reply in self.replies]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_restore_of_a_busy_slot_is_not_read_before_it_is_idle(desk: Desk) -> None:
    desk.slots[1].is_busy = True
    for call_id in range(MAX_WAITING):
        desk.ask(call_id, "restore", 1)
    assert desk.files.jobs == []
    desk.ask(999, "restore", 1)
    assert (desk.answered(), desk.replies[0].answer) == ([999], None)
    desk.slots[1].is_busy = False
    desk.calls.retry()
    assert len(desk.files.jobs) == 1, "one state in memory at a time"
    desk.read_and_write()
    assert desk.answered() == [999, 0]
    assert len(desk.slots[1].resident) == 19
    assert len(desk.files.jobs) == 1


@pytest.mark.parametrize("when", ["waiting", "reading", "read"])
def test_the_call_of_a_client_that_went_away_is_dropped(desk: Desk, when: str) -> None:
    if when == "waiting":
        desk.slots[1].is_busy = True
    desk.ask(1, "restore", 1)
    desk.ask(2, "restore", 0)
    if when == "read":
        desk.slots[1].is_busy = True
        desk.read_and_write()
        assert desk.answered() == []
    desk.calls.abort("call 1")
    desk.slots[1].is_busy = False
    for _ in range(3):
        desk.calls.retry()
        desk.read_and_write()
    assert desk.answered() == [2]
    assert len(desk.slots[1].resident) == 0


def test_a_state_that_was_read_waits_for_a_slot_that_got_busy_meanwhile(desk: Desk) -> None:
    desk.ask(1, "restore", 1)
    desk.slots[1].is_busy = True
    desk.read_and_write()
    desk.ask(2, "restore", 0)
    desk.calls.retry()
    assert (desk.answered(), desk.files.jobs) == ([], [])
    desk.slots[1].is_busy = False
    desk.calls.retry()
    assert desk.answered() == [1]
    desk.read_and_write()
    assert desk.answered() == [1, 2]


def test_saves_copy_one_state_at_a_time(desk: Desk) -> None:
    for call_id in (1, 2, 3):
        desk.ask(call_id, "save", 0, f"new{call_id}")
    assert len(desk.files.jobs) == 1
    for _ in range(6):  # each has its memory made ready, and then its file written
        desk.read_and_write()
    assert desk.answered() == [1, 2, 3]


@pytest.mark.parametrize("meanwhile", ["nothing", "a longer text"])
def test_a_state_is_copied_into_memory_that_was_made_ready_beside(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    copied: list[object] = []
    copy = desk.driver.runner.memory.state_get

    def state_get(seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes | memoryview:
        copied.append(into)
        return copy(seq_id, into, part=part)

    desk.ask(1, "save", 0, "new")
    desk.ask(2, "erase", 0)
    desk.files.run()
    monkeypatch.setattr(desk.driver.runner.memory, "state_get", state_get)
    n_cells = 19
    if meanwhile == "a longer text":
        desk.driver.submit(request("second", tuple(range(1, 30)), n_predict=2, id_slot=0))
        desk.driver.step()
        desk.read_and_write()
        assert (copied, desk.answered()) == ([], []), "a busy slot is waited for"
        desk.driver.run()
        n_cells = len(desk.slots[0].resident)
        desk.calls.retry()
    else:
        desk.read_and_write()
    assert (copied[-1] is not None) == (meanwhile == "nothing"), "there was too little for a longer text"
    assert desk.answered() == [2], "it waits for the copy, not for the file"
    desk.read_and_write()
    assert desk.answered() == [2, 1]
    state, _ = slot_file.read(desk.folder / "new", lambda: KEYS, 1000)
    assert len(state.cells) == n_cells
    desk.ask(3, "restore", 1, "new")
    desk.read_and_write()
    assert foreign_cells(desk.driver.engine.cache, desk.driver.runner.memory) == []


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_save_of_a_client_that_went_away_before_the_copy_is_dropped(desk: Desk, is_ready: bool) -> None:
    desk.ask(1, "save", 0, "new")
    if is_ready:
        desk.slots[0].is_busy = True
        desk.read_and_write()
    desk.calls.abort("call 1")
    desk.slots[0].is_busy = False
    desk.ask(2, "erase", 0)
    for _ in range(3):
        desk.read_and_write()
    assert (desk.answered(), (desk.folder / "new").exists()) == ([2], False)


def test_calls_for_one_slot_keep_their_order(desk: Desk) -> None:
    desk.ask(1, "save", 1, "empty")
    desk.ask(2, "restore", 1)
    desk.ask(3, "erase", 1)
    desk.ask(4, "erase", 0)
    assert desk.answered() == [4], "another slot's does not wait"
    for _ in range(4):
        desk.read_and_write()
    assert desk.answered() == [4, 1, 2, 3]
    assert desk.replies[-1].answer == Erasure(19)


def test_a_file_that_is_none_is_told_and_the_next_goes_on(desk: Desk) -> None:
    desk.ask(1, "restore", 1, "missing")
    desk.ask(2, "restore", 1)
    desk.read_and_write()
    assert desk.replies[0].error is not None
    desk.read_and_write()
    assert desk.answered() == [1, 2]
