"""The worker's loop: where nothing is due it waits and hears at once of what comes in; steps lie between many tasks."""

from __future__ import annotations

import queue
import threading
from math import inf
from typing import Any, cast

import pytest

from llamabox.engine.events import Activity, StepResult
from llamabox.engine.request import Request, Words
from llamabox.errors import InvalidRequest, LlamaboxError
from llamabox.wire.common import Shutdown
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Abort
from llamabox.workers.text import loop as loops
from llamabox.workers.text.grammars.coming import GrammarCame
from llamabox.workers.text.loop import TextLoop
from llamabox.workers.text.media.encoder import EncodingsDone

WITHIN = 60.0
"""Seconds after which a test that waits for an event has failed."""


class RestingEngine:
    """Has a sequence that is due in so many seconds, or once media are encoded."""

    is_idle = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.n_steps = 0
        self.heard: queue.SimpleQueue[object] = queue.SimpleQueue()

    def rest(self) -> float:
        return self.seconds

    def step(self) -> StepResult:
        self.n_steps += 1
        return StepResult([], Activity(), None)

    def activity(self) -> Activity:
        return Activity()

    def abort(self, request_id: str) -> None:
        self.heard.put(request_id)

    def refuse(self, request_id: str, error: LlamaboxError) -> None:
        self.heard.put(request_id)

    def submit(self, request: Request) -> None:
        self.heard.put(request.request_id)


class NoSlotCalls:
    def retry(self) -> None:
        """There are none."""

    def abort(self, request_id: str) -> None:
        """There are none."""


class Desk:
    def __init__(self, heard: queue.SimpleQueue[object]) -> None:
        self._heard = heard

    def finished(self, done: EncodingsDone) -> None:
        self._heard.put("r")


TASKS = {
    "abort": Abort("r"),
    "request": Request(request_id="r", prompt=(Words((1,)),)),
    "encoding": EncodingsDone([], [], 0.0),
    "grammar": GrammarCame("r", InvalidRequest("Field 'tools': too large")),
}


@pytest.mark.parametrize("seconds", [3600.0, inf], ids=["speed limits", "media"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_comes_in_while_all_rest_is_heard_at_once_and_nothing_spins(task: object, seconds: float) -> None:
    engine, tasks = RestingEngine(seconds), queue.SimpleQueue[Any]()
    nobody = cast(Any, None)
    slots = cast(Any, NoSlotCalls())
    desk = cast(Any, Desk(engine.heard))
    loop = TextLoop(nobody, tasks, cast(Any, engine), slots, Pulse(nobody, 0.0), media=desk)
    running = threading.Thread(target=loop.run, daemon=True)
    running.start()
    tasks.put(task)
    assert engine.heard.get(timeout=WITHIN) == "r"
    tasks.put(Shutdown())
    running.join(WITHIN)
    assert not running.is_alive()
    assert engine.n_steps <= 2, "a step for each task, and no more"


def test_streams_go_on_while_many_tasks_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "MOST_TASKS", 0.0)
    engine, tasks = RestingEngine(0.0), queue.SimpleQueue[Any]()
    nobody, slots = cast(Any, None), cast(Any, NoSlotCalls())
    for i in range(50):
        tasks.put(Request(request_id=f"{i}", prompt=(Words((1,)),)))
    tasks.put(Shutdown())
    TextLoop(nobody, tasks, cast(Any, engine), slots, Pulse(nobody, 0.0)).run()
    assert [engine.heard.get_nowait() for _ in range(50)] == [f"{i}" for i in range(50)]
    assert engine.n_steps >= 50


class IdleEngine(RestingEngine):
    is_idle = True

    def check_integrity(self) -> list[str]:
        return []


def test_what_is_made_ready_at_rest_begins_behind_the_tasks_at_hand_and_once() -> None:
    engine, tasks = IdleEngine(0.0), queue.SimpleQueue[Any]()
    nobody, slots = cast(Any, None), cast(Any, NoSlotCalls())
    begun: queue.SimpleQueue[list[object]] = queue.SimpleQueue()

    def at_rest() -> None:
        begun.put([engine.heard.get_nowait() for _ in range(engine.heard.qsize())])

    tasks.put(Abort("first"))
    loop = TextLoop(nobody, tasks, cast(Any, engine), slots, Pulse(nobody, 0.0), at_rest=at_rest)
    running = threading.Thread(target=loop.run, daemon=True)
    running.start()
    assert begun.get(timeout=WITHIN) == ["first"]
    for i in range(3):
        tasks.put(Abort(f"{i}"))
        assert engine.heard.get(timeout=WITHIN) == f"{i}"
    tasks.put(Shutdown())
    running.join(WITHIN)
    assert not running.is_alive()
    assert begun.empty()
