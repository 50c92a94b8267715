from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.clients.state import WorkerState
from llamabox.clients.text.client import Generation, TextClient
from llamabox.engine.events import Delta, Finished, Started
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import InvalidRequest, ModelLoadError, NativeError, ServerFault, Unavailable
from llamabox.wire.frames import Message, encode
from llamabox.wire.questions import Layout
from llamabox.wire.server_end import ServerEnd
from llamabox.wire.text import Submit
from llamabox.wire.text_config import TextConfig
from tests.clients.harness import (
    LOOPS,
    command,
    events_of,
    exists,
    make_client,
    ready_client,
    run,
    submit,
    text_of,
    watch,
    worker_env,
)

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def lives(tmp_path: Path) -> Path:
    return tmp_path / "lives"


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Loop:
    loop: Loop = request.param
    return loop


async def held(client: TextClient, request_id: str, command: str = "hold") -> Generation:
    """A request that runs and does not end."""
    generation = client.generate(submit(request_id, command))
    assert [type(event) for event in await generation.batch()] == [Started]
    return generation


def kill(client: TextClient, number: signal.Signals = signal.SIGKILL) -> None:
    assert client.pid is not None
    os.kill(client.pid, number)


# Several prompts


def test_what_all_prompts_of_a_request_share_travels_once(lives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Message] = []
    send = ServerEnd.send

    def spied(channel: ServerEnd, message: Message) -> None:
        sent.append(message)
        send(channel, message)

    async def main() -> None:
        async with ready_client(lives) as client:
            params = GenerationParams(sampling=SamplingParams(logit_bias=tuple((i, 0.5) for i in range(4096))))
            submits = [Submit(request_id=str(i), prompt=[f"echo {i}"], params=params) for i in range(100)]
            monkeypatch.setattr(ServerEnd, "send", spied)
            generations = client.generate_all(submits)
            assert [await text_of(generation) for generation in generations] == [str(i) for i in range(100)]

    run(main())
    assert sum(len(encode(message)) for message in sent) < 2 * len(encode(sent[0]))
    assert len(encode(sent[0])) < 200_000


def test_all_prompts_of_a_request_are_sent_or_none_is(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives, "fine") as client:
            for prompt in ("die SIGKILL", "die SIGKILL"):
                await client.wait_ready()
                with pytest.raises(Unavailable):
                    await text_of(client.generate(submit("killer", prompt)))
            await client.wait_ready()
            params = GenerationParams()
            prompts = ("hold", "die SIGKILL")
            with pytest.raises(ServerFault, match="twice"):
                client.generate_all([Submit(request_id=p, prompt=[p], params=params) for p in prompts])
            assert await text_of(client.generate(submit("hold", "echo on"))) == "on"

    run(main())


# Loading


def test_a_client_reports_progress_and_then_the_model(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        async with make_client(lives) as client:
            assert client.state is WorkerState.LOADING
            with pytest.raises(Unavailable, match="Loading model"):
                client.generate(submit("a", "echo x"))
            with pytest.raises(Unavailable, match="Loading model"):
                await client.ask(command("echo"))
            info = await client.wait_ready()
            assert (client.state, client.progress, client.info) == (WorkerState.READY, 1.0, info)
            assert info.eog_tokens == [2]
        assert client.state is WorkerState.STOPPED

    run(main(), new_loop)


def test_a_first_load_that_fails_is_final_and_says_why(lives: Path) -> None:
    async def main() -> None:
        async with make_client(lives, "refuse,fine") as client:
            with pytest.raises(ModelLoadError, match=r"fake\.gguf is no model"):
                await client.wait_ready()
            assert client.state is WorkerState.FAILED
            assert client.n_restarts == 0
            with pytest.raises(Unavailable, match="could not be loaded"):
                client.generate(submit("a", "echo x"))
            with pytest.raises(ModelLoadError):
                await client.wait_ready()

    run(main())


@pytest.mark.parametrize(
    ("script", "words"),
    [("SIGSEGV", "killed by SIGSEGV"), ("SIGKILL", "killed by SIGKILL"), ("exit", "exited with code 3")],
)
def test_a_death_in_the_first_load_is_final_and_names_its_kind(lives: Path, script: str, words: str) -> None:
    async def main() -> None:
        async with make_client(lives, f"{script},fine") as client:
            with pytest.raises(NativeError, match=words):
                await client.wait_ready()
            assert client.state is WorkerState.FAILED

    run(main())


def test_a_worker_that_cannot_be_started_is_a_failed_load(lives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def main() -> None:
        async with make_client(lives) as client:
            with pytest.raises(NativeError, match="could not be started"):
                await client.wait_ready()

    run(main())


# Requests


def test_a_generation_ends_after_all_its_sequences(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            events = await events_of(client.generate(submit("a", "echo x y", n=2)))
            assert [(type(event), event.index) for event in events] == [
                (kind, index) for kind in (Started, Delta, Delta, Finished) for index in (0, 1)
            ]

    run(main(), new_loop)


def test_one_wake_up_brings_all_events_of_a_step(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            generation = client.generate(submit("a", "echo x y"))
            assert [type(event) for event in await generation.batch()] == [Started, Delta, Delta, Finished]
            assert await generation.batch() == []

    run(main())


def test_a_failed_event_is_raised_after_what_came_before_it(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            generation = client.generate(submit("a", "fail"))
            assert [type(event) for event in await generation.batch()] == [Started, Delta]
            with pytest.raises(InvalidRequest, match="no such token") as caught:
                await generation.batch()
            assert caught.value.field == "logit_bias"
            assert await text_of(client.generate(submit("b", "echo right"))) == "right"

    run(main())


def test_an_abort_reaches_the_worker_once_and_ends_the_iteration(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            async with await held(client, "a") as generation:
                waiting = asyncio.ensure_future(text_of(generation))
                await asyncio.sleep(0)
                generation.abort()
                generation.abort()
                assert await waiting == ""
            await client.ask(command("late", "a"))
            assert await generation.batch() == []
            assert (await client.ask(command("aborted"))).text == "a"

    run(main())


def test_leaving_a_generation_aborts_it_unless_it_is_complete(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            async with client.generate(submit("complete", "echo x")) as generation:
                assert await text_of(generation) == "x"
            with pytest.raises(ZeroDivisionError):
                async with await held(client, "left"):
                    raise ZeroDivisionError
            assert (await client.ask(command("aborted"))).text == "left"

    run(main())


def test_a_cancelled_consumer_leaves_a_generation_that_can_be_aborted(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            generation = await held(client, "a")
            waiting = asyncio.ensure_future(generation.batch())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            generation.abort()
            assert (await client.ask(command("aborted"))).text == "a"

    run(main())


def test_a_slow_consumer_is_dropped_and_the_others_go_on(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives, max_lag=64) as client:
            slow = client.generate(submit("slow", "flood 1000"))
            other = client.generate(submit("other", "echo right"))
            assert await text_of(other) == "right"  # sent after the flood, so that has arrived by now
            with pytest.raises(ServerFault, match="too slow"):
                await slow.batch()
            assert (await client.ask(command("aborted"))).text == "slow"

    run(main())


def test_a_consumer_that_keeps_up_misses_nothing(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            generations = [client.generate(submit(str(i), "flood 500")) for i in range(8)]
            texts = await asyncio.gather(*(text_of(generation) for generation in generations))
            assert set(texts) == {"".join(map(str, range(500)))}

    run(main(), new_loop)


def test_a_request_id_is_unique_among_those_that_run(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            await held(client, "a")
            with pytest.raises(AssertionError, match="runs already"):
                client.generate(submit("a", "hold"))

    run(main())


# Calls


def test_calls_get_their_own_answers_in_whatever_order_those_come(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            calls = [asyncio.ensure_future(client.ask(command("hold", number=i))) for i in range(10)]
            await asyncio.sleep(0)
            assert await client.ask(command("release")) == Layout([0], "")
            assert await asyncio.gather(*calls) == [Layout([i], "") for i in range(10)]
            with pytest.raises(InvalidRequest, match="no such call"):
                await client.ask(command("nonsense"))

    run(main())


def test_an_answer_of_another_type_than_the_question_s_is_no_message(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            with pytest.raises(Unavailable, match="ended while it served"):
                await client.ask(command("mistake"))
            await client.wait_ready()
            assert client.n_restarts == 1

    run(main())


def test_a_call_that_was_given_up_does_not_disturb_the_next(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            call = asyncio.ensure_future(client.ask(command("hold")))
            await asyncio.sleep(0)
            call.cancel()
            assert await client.ask(command("release")) == Layout([0], "")
            assert (await client.ask(command("echo", "\ud800a"))).text == "\ufffda"
            with pytest.raises(asyncio.CancelledError):
                await call

    run(main())


# Deaths


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_death_fails_what_was_in_flight_and_the_next_request_is_right(
    lives: Path, new_loop: Loop, number: signal.Signals
) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            running = [await held(client, f"hold {i}") for i in range(4)]
            call = asyncio.ensure_future(client.ask(command("hold")))
            await asyncio.sleep(0)
            kill(client, number)
            for generation in running:
                with pytest.raises(Unavailable, match="ended while it served"):
                    await generation.batch()
                assert client.state is WorkerState.RESTARTING
            with pytest.raises(Unavailable):
                await call
            with pytest.raises(Unavailable, match="being restarted"):
                client.generate(submit("too early", "echo x"))
            await client.wait_ready()
            assert client.n_restarts == 1
            assert await text_of(client.generate(submit("next", "echo right"))) == "right"

    run(main(), new_loop)


def test_an_idle_death_is_noticed(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            kill(client)
            assert await client.wait_change() is WorkerState.RESTARTING
            await client.wait_ready()
            assert await text_of(client.generate(submit("a", "echo right"))) == "right"

    run(main())


def test_reloads_that_fail_are_tried_again(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives, "fine,refuse,exit,SIGSEGV,fine") as client:
            kill(client)
            await client.wait_change()
            await client.wait_ready()
            assert client.n_restarts == 4
            assert await text_of(client.generate(submit("a", "echo right"))) == "right"

    run(main())


def test_a_worker_that_sends_nonsense_is_taken_for_dead(lives: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            pid = client.pid
            with pytest.raises(Unavailable):
                await text_of(client.generate(submit("a", "garbage")))
            await client.wait_ready()
            assert client.pid != pid
            assert await text_of(client.generate(submit("b", "echo right"))) == "right"

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "is announced" in caplog.text
    assert "lives on" not in caplog.text  # the end of its channel is enough for it


def test_a_request_that_killed_two_workers_is_refused_and_no_other(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            for i in range(2):
                with pytest.raises(Unavailable):
                    await text_of(client.generate(submit(f"killer {i}", "die SIGSEGV")))
                await client.wait_ready()
            with pytest.raises(ServerFault, match="refused"):
                client.generate(submit("killer again", "die SIGSEGV"))
            assert await text_of(client.generate(submit("other", "echo right"))) == "right"
            assert client.n_restarts == 2

    run(main())


# Stopping


def test_whoever_starts_it_again_changes_nothing(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            pid = client.pid
            await client.start()
            assert client.pid == pid
        assert lives.read_text() == "x"

    run(main())


def test_stopping_ends_what_runs_and_leaves_no_process_and_no_descriptor(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        async with ready_client(lives) as warm_up:
            kill(warm_up)
            await warm_up.wait_change()
            await warm_up.wait_ready()
        descriptors = os.listdir("/proc/self/fd")
        client = make_client(lives)
        await client.start()
        await client.wait_ready()
        pid = client.pid
        assert pid is not None
        running = await held(client, "a")
        await asyncio.gather(client.stop(5.0), client.stop(5.0))
        await client.stop(5.0)
        with pytest.raises(Unavailable, match="stopping"):
            await running.batch()
        with pytest.raises(Unavailable, match="stopping"):
            client.generate(submit("b", "echo x"))
        with pytest.raises(Unavailable, match="stopping"):
            await client.wait_ready()
        assert not exists(pid)
        assert sorted(os.listdir("/proc/self/fd")) == sorted(descriptors)

    run(main(), new_loop)


@pytest.mark.parametrize("script", ["hang", "deaf"])
def test_a_worker_that_does_not_obey_is_killed(lives: Path, script: str) -> None:
    async def main() -> None:
        async with ready_client(lives, script) as client:
            pid = client.pid
            assert pid is not None
            await client.stop(grace=0.05)
            assert not exists(pid)

    run(main())


def test_a_worker_that_is_asked_to_stop_says_so_and_goes_on(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            assert not client.stop_asked.is_set()
            for _ in range(2):
                await client.ask(command("ask to stop"))
                assert client.stop_asked.is_set()
            assert client.state is WorkerState.READY
            assert await text_of(client.generate(submit("a", "echo right"))) == "right"
            assert client.n_restarts == 0

    run(main(), new_loop)


def test_a_worker_that_sigterm_ends_before_it_can_speak_is_not_started_again(lives: Path) -> None:
    async def main() -> None:
        async with make_client(lives, "SIGTERM,fine") as client:
            with pytest.raises(Unavailable, match="stopping"):
                await client.wait_ready()
            await client.stop_asked.wait()
            assert client.pid is None
            assert client.n_restarts == 0

    run(main())


def test_stopping_works_while_the_worker_loads(lives: Path) -> None:
    async def main() -> None:
        async with make_client(lives, "stall") as client:
            waiting = asyncio.ensure_future(client.wait_ready())
            while client.progress < 0.5:
                await client.wait_change()
            pid = client.pid
            assert pid is not None
            await client.stop(grace=0.05)
            assert not exists(pid)
            with pytest.raises(Unavailable):
                await waiting

    run(main())


def test_stopping_works_at_once_after_starting_and_before(lives: Path, new_loop: Loop) -> None:
    async def main() -> None:
        await make_client(lives).stop(grace=5.0)
        async with make_client(lives) as client:
            await client.stop(grace=5.0)
            assert client.pid is None

    run(main(), new_loop)


def test_stopping_right_after_a_death_starts_nothing(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            kill(client)
            await client.wait_change()
            await client.stop(grace=5.0)
            assert client.pid is None
            assert client.state is WorkerState.STOPPED
            assert client.n_restarts == 0

    run(main())


PARENT = """
import asyncio, pathlib, sys
from tests.clients.harness import make_client

async def main():
    client = make_client(pathlib.Path(sys.argv[1]), sys.argv[2])
    await client.start()
    await client.wait_ready()
    print(client.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("script", "extra"),
    [("fine", {"FAKE_NO_DEATHSIG": "1"}), ("deaf", {})],
    ids=["by the end of file", "by the kernel, when it does not listen"],
)
def test_no_worker_outlives_a_server_that_was_killed(lives: Path, script: str, extra: dict[str, str]) -> None:
    env = {**os.environ, **worker_env(lives), **extra}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(lives), script], env=env, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker_ended = watch(int(parent.stdout.readline()))
        parent.kill()
    assert worker_ended()


def test_a_terminal_s_signals_do_not_reach_the_worker(lives: Path) -> None:
    async def main() -> None:
        async with ready_client(lives) as client:
            assert client.pid is not None
            assert os.getpgid(client.pid) == client.pid != os.getpgid(0)

    run(main())


@pytest.mark.parametrize(("verbosity", "wants_trace"), [(0, False), (1, False), (99, True)])
def test_ggml_starts_a_debugger_only_for_who_wants_to_see_everything(
    tmp_path: Path, verbosity: int, wants_trace: bool
) -> None:
    async def main() -> None:
        config = TextConfig(model="fine", verbosity=verbosity)
        async with TextClient(config, module="tests.clients.fake_worker", env=worker_env(tmp_path / "lives")) as client:
            await client.wait_ready()
            variables = Path(f"/proc/{client.pid}/environ").read_bytes().split(b"\0")
            assert (b"GGML_NO_BACKTRACE=1" not in variables) == wants_trace

    run(main())
