"""Whatever a question does to the process that it is asked, the side that asks gets an answer or a Death, in time."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamabox.quarantine.trial import MOST_PUT, Cause, Death, Limits, Trial

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(cpu_seconds=0.5, memory=1 << 30)

Make = Callable[..., Trial]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes trials, and closes them."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made: list[Trial] = []

    def build(limits: Limits = LIMITS, *more: Any) -> Trial:
        made.append(Trial("tests.quarantine.answers", limits, *more))
        return made[-1]

    yield build
    for trial in made:
        trial.close()


def death(answer: bytearray | Death) -> Death:
    assert isinstance(answer, Death), answer
    return answer


def test_a_process_answers_one_question_after_the_other(make: Make) -> None:
    trial = make()
    assert trial.pid is None
    assert trial.ask(b"turn abc") == b"cba"
    pid = trial.pid
    assert [trial.ask(b"turn ", b"x" * n, b"y") for n in range(3)] == [b"y", b"yx", b"yxx"]
    assert trial.ask(b"turn ") == b""
    assert trial.pid == pid


def test_tens_of_megabytes_go_in_and_come_back(make: Make) -> None:
    """As a picture does, which is decoded in such a process."""
    picture = os.urandom(1 << 20) * 48
    answer = make(Limits(cpu_seconds=30, memory=1 << 30)).ask(b"turn ", memoryview(picture))
    assert not isinstance(answer, Death)
    assert answer == picture[::-1]


ENDS: dict[str, tuple[bytes, Cause]] = {
    "a loop without an end": (b"spin", Cause.TIME),
    "more memory than there is": (b"take 2000000000", Cause.CRASH),
    "a fault of native code": (b"crash", Cause.CRASH),
    "an exception": (b"fail", Cause.CRASH),
    "its own end": (b"exit 3", Cause.CRASH),
}


@pytest.mark.parametrize("stack", [0, 2 << 20], ids=["main thread", "thread"])
@pytest.mark.parametrize("name", ENDS)
def test_who_dies_of_a_question_is_replaced(make: Make, name: str, stack: int) -> None:
    question, cause = ENDS[name]
    trial = make(Limits(cpu_seconds=1.0, memory=1 << 30, stack=stack))
    assert trial.ask(b"turn ab") == b"ba"
    assert death(trial.ask(question)).cause is cause
    assert trial.pid is None
    assert trial.ask(b"turn ab") == b"ba"


def test_a_death_says_what_happened(make: Make) -> None:
    assert str(make().ask(b"spin")) == "it ran for more than 0.5 s"
    assert str(make().ask(b"exit 3")) == "its process ended with status 3"
    silent = make()
    silent.start()
    silent.limits = replace(LIMITS, wall_seconds=0.5)
    began = time.process_time()
    assert str(silent.ask(b"sleep")) == "its process said nothing for 0.5 s"
    assert time.process_time() - began < 0.25, "who asks does not spin"


def test_processor_time_is_a_question_s_own(make: Make) -> None:
    """It is not summed up over questions, and one may have more than usual."""
    trial = make(Limits(cpu_seconds=0.3, memory=1 << 30))
    for _ in range(3):
        assert death(trial.ask(b"spin")).seconds == 0.3
    assert death(trial.ask(b"spin", cpu_seconds=0.1)).seconds == 0.1


def test_one_that_is_stopped_is_given_up(make: Make) -> None:
    trial = make()
    assert trial.ask(b"turn ab") == b"ba"
    trial.limits = replace(LIMITS, wall_seconds=0.5)
    assert trial.pid is not None
    os.kill(trial.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, trial.pid, os.WSTOPPED)
    assert death(trial.ask(b"turn ab")).cause is Cause.SILENCE
    trial.limits = LIMITS
    assert trial.ask(b"turn ab") == b"ba"


def test_no_question_is_to_blame_for_what_somebody_ended_in_its_sleep(make: Make) -> None:
    trial = make()
    trial.ask(b"turn ab")
    assert trial.pid is not None
    os.kill(trial.pid, signal.SIGKILL)
    os.waitid(os.P_PID, trial.pid, os.WEXITED | os.WNOWAIT)
    assert trial.ask(b"turn ab") == b"ba"


def test_signals_of_a_terminal_are_for_the_server(make: Make) -> None:
    trial = make()
    trial.ask(b"turn ab")
    pid = trial.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert trial.ask(b"turn ab") == b"ba"
    assert trial.pid == pid
    assert os.getpgid(pid) != os.getpgid(0)


def test_every_process_is_greeted_first(make: Make) -> None:
    greetings = iter([b"one", b"two"])
    trial = make(LIMITS, lambda: next(greetings))
    assert trial.start() == b"one"
    assert trial.ask(b"first") == b"one"
    assert death(trial.ask(b"exit 1")).status == 1
    assert trial.ask(b"first") == b"two"


def test_one_that_dies_of_its_greeting_answers_nothing(make: Make) -> None:
    trial = make(LIMITS, lambda: b"exit 4")
    for _ in range(2):
        assert death(trial.ask(b"turn ab")).status == 4
        assert trial.pid is None


def test_the_greeting_may_take_longer(make: Make) -> None:
    trial = make(Limits(cpu_seconds=0.1, start_seconds=0.2, memory=1 << 30), lambda: b"spin")
    assert death(trial.start()).seconds == pytest.approx(0.3)


def test_a_question_can_be_broken_off_from_another_thread(make: Make) -> None:
    trial = make(Limits(cpu_seconds=60, memory=1 << 30))
    trial.ask(b"turn ab")
    answers: list[bytearray | Death] = []
    asking = threading.Thread(target=lambda: answers.append(trial.ask(b"sleep")))
    asking.start()
    while not answers:
        trial.abort()
        asking.join(0.1)
    assert death(answers[0]).status == -signal.SIGKILL


async def put(trial: Trial, question: bytes, cpu_seconds: float = 0.5) -> bytearray | Death:
    assert trial.is_ready
    assert trial.put(question, cpu_seconds)
    return await trial.answer(cpu_seconds)


def test_an_event_loop_asks_without_waiting(make: Make) -> None:
    """Questions and answers are the same on either way, one after the other."""
    trial = make()

    async def scene() -> None:
        assert not trial.is_ready
        for n in (0, 3, 30_000):
            assert await asyncio.to_thread(trial.ask, b"turn ", b"ab" * n) == b"ba" * n
            assert await put(trial, b"turn " + b"ab" * n) == b"ba" * n
        assert not trial.put(bytes(MOST_PUT + 1), 0.5)
        assert await asyncio.to_thread(trial.ask, b"turn ab") == b"ba"

    asyncio.run(scene())


@pytest.mark.parametrize("name", ENDS)
def test_who_dies_of_what_an_event_loop_asks_is_replaced(make: Make, name: str) -> None:
    question, cause = ENDS[name]
    trial = make()
    trial.start()
    assert death(asyncio.run(put(trial, question))).cause is cause
    assert not trial.is_ready
    assert trial.ask(b"turn ab") == b"ba"


def test_an_event_loop_goes_on_beside_one_that_says_nothing(make: Make) -> None:
    trial = make()
    trial.start()
    trial.limits = replace(LIMITS, wall_seconds=0.5)

    async def scene() -> None:
        asking = asyncio.create_task(put(trial, b"sleep"))
        n_turns = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            n_turns += 1
        assert death(asking.result()).cause is Cause.SILENCE
        assert n_turns >= 5

    asyncio.run(scene())


def test_an_answer_that_comes_in_pieces_is_waited_for(make: Make) -> None:
    """More than a socket has room for: the process is held up amid its answer."""
    trial = make()
    trial.start()

    async def scene() -> None:
        assert await put(trial, b"long 3000000") == b"x" * 3_000_000

    asyncio.run(scene())


def test_closing_ends_it_and_leaves_nothing_behind(make: Make) -> None:
    trial = make()
    trial.ask(b"turn ab")
    pid = trial.pid
    assert trial.close() == 0
    assert trial.close() is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid or 0), 0)
    assert trial.ask(b"turn ab") == b"ba"


def test_limits_reach_the_process(make: Make) -> None:
    trial = make(Limits(cpu_seconds=1, memory=1 << 30, stack=3 << 20, niceness=5))
    assert trial.ask(b"stack") == str(3 << 20).encode()
    assert trial.ask(b"nice") == str(os.nice(0) + 5).encode()
    assert os.getsid(int(trial.pid or 0)) == os.getsid(0)  # else its niceness says nothing to the server's processes
    limits = Path(f"/proc/{trial.pid}/limits").read_text()
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    wanted = ("Max address space", "Max core file size", "Max file size", "Max open files")
    assert [found[name] for name in wanted] == [str(1 << 30), "0", "0", "1"]
