"""Long texts wait for each other and hold up nobody else; one that is aborted never arrives."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from llamabox.engine.request import GenerationParams, Picture, PromptText, SamplingParams, Sound
from llamabox.machine.niceness import BESIDE_DECODES, MOST
from llamabox.wire.questions import CountTokens, Detokenise, LayOutInfill, LookAtSlots, Tokenise
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Call, Submit, SubmitAll
from llamabox.workers.text.helpers import Helpers
from llamabox.workers.text.long_texts import MIN_BYTES, MIN_TOKENS, LongTexts, is_long


def submit(name: str, prompt: PromptText | None = None) -> Submit:
    return Submit(request_id=name, prompt=prompt or ["x"], params=GenerationParams())


def tokenise(text: str) -> Tokenise:
    return Tokenise([text], add_special=False, parse_special=False)


def biased(*texts: str) -> GenerationParams:
    return GenerationParams(sampling=SamplingParams(logit_bias=tuple((text, 1.0) for text in texts)))


def infill(**fields: Any) -> LayOutInfill:
    return LayOutInfill(**{"prefix": "", "suffix": "", "prompt": "", "extra": [], "n_predict": 1} | fields)


@pytest.mark.parametrize(
    ("message", "long"),
    [
        (submit("a", ["x" * MIN_BYTES]), False),
        (submit("a", ["x" * MIN_BYTES, "x"]), True),
        (submit("a", [1] * MIN_TOKENS), False),
        (submit("a", [1] * (MIN_TOKENS + 1)), True),
        (SubmitAll([("a", ["x"])] * 4, GenerationParams()), False),
        (SubmitAll([("a", ["x"]), ("b", ["x" * MIN_BYTES])], GenerationParams()), True),
        (SubmitAll([(str(i), ["x"]) for i in range(100)], GenerationParams()), True),
        (Call(1, tokenise("x" * (MIN_BYTES + 1))), True),
        (Call(1, Detokenise([1] * (MIN_TOKENS + 1))), True),
        (Call(1, infill(prefix="x" * MIN_BYTES, prompt="x")), True),
        (Call(1, infill(suffix="x", extra=[("a.py", "x" * MIN_BYTES)])), True),
        (Call(1, infill(prefix="x" * MIN_BYTES)), False),
        (Submit(request_id="a", prompt=[], params=GenerationParams(stop=("x" * MIN_BYTES,))), True),
        (submit("a", ["What is this?", Picture(1, 1, b"rgb")]), True),
        (SubmitAll([("a", ["x"]), ("b", [Sound(16000, b"1234")])], GenerationParams()), True),
        (Call(1, CountTokens([Picture(1, 1, b"rgb")])), True),
        (Call(1, LookAtSlots()), False),
        (Submit(request_id="a", prompt=[], params=biased("x" * MIN_BYTES)), False),
        (Submit(request_id="a", prompt=["x"], params=GenerationParams(), prediction="x" * MIN_BYTES), True),
        (Submit(request_id="a", prompt=[], params=biased("x" * MIN_BYTES, "y")), True),
    ],
)
def test_what_is_long(message: Submit | SubmitAll | Call, long: bool) -> None:
    assert is_long(message) is long


class Work:
    """Each message is begun, waits for `go`, and is handed on."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[Submit | Call] = queue.SimpleQueue()
        self.go = threading.Semaphore(0)
        self.handed_on: queue.SimpleQueue[Submit | Call] = queue.SimpleQueue()
        self.niceness = 0
        self.lane = LongTexts(self.prepare, Pulse(cast(Any, None), 0.0))
        self.lane.start()

    def prepare(self, message: Submit | Call) -> Callable[[], None]:
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.begun.put(message)
        assert self.go.acquire(timeout=60)
        return lambda: self.handed_on.put(message)


def test_one_after_the_other_in_order() -> None:
    work = Work()
    messages: list[Submit | Call] = [submit("a"), Call(1, tokenise("a")), submit("b")]
    for message in messages:
        work.lane.put(message)
    for message in messages:
        work.go.release()
        assert work.handed_on.get(timeout=60) is message


def test_an_aborted_one_never_arrives_whether_it_has_begun_or_not() -> None:
    work = Work()
    for name in ("begun", "waiting", "last"):
        work.lane.put(submit(name))
    assert work.begun.get(timeout=60) == submit("begun")
    work.lane.abort("begun")
    work.lane.abort("waiting")
    work.lane.abort("never heard of")
    work.go.release(2)
    assert work.handed_on.get(timeout=60) == submit("last")
    assert work.begun.get(timeout=60) == submit("last")
    assert work.begun.empty()


def test_it_yields_to_those_that_decode() -> None:
    work = Work()
    work.lane.put(submit("a"))
    work.go.release()
    work.handed_on.get(timeout=60)
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert work.niceness == min(mine + BESIDE_DECODES, MOST)


def test_helpers_for_which_no_step_waits_yield_too() -> None:
    helpers = Helpers(Pulse(cast(Any, None), 0.0))

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    mine, yielding = niceness(), min(niceness() + BESIDE_DECODES, MOST)
    pools = (helpers.masks, helpers.grammars, helpers.files)
    assert [pool.submit(niceness).result() for pool in pools] == [mine, yielding, yielding]
    helpers.close()
