from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.clients.image.client import ImageClient, JobState
from llamabox.clients.image.drawing import Drawing
from llamabox.clients.state import WorkerState
from llamabox.errors import InvalidRequest, ModelLoadError, QueueFull, ServerFault, Unavailable
from llamabox.imaging.events import Drawn, Event, JobFinished, JobStarted, Queued
from llamabox.imaging.job import Pixels
from tests.clients.harness import LOOPS, exists, ready_client, run, submit, text_of
from tests.clients.image.image_harness import Clock, Stage, all_of, images, job, step, until

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    os.mkfifo(tmp_path / "gate")
    pipe = os.open(tmp_path / "gate", os.O_RDWR)
    yield Stage(tmp_path, Clock(), pipe)
    os.close(pipe)


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Loop:
    loop: Loop = request.param
    return loop


async def held(client: ImageClient, request_id: str, steps: int = 2, n: int = 1) -> Drawing:
    """A job that is drawn and waits at the gate."""
    drawing = client.draw(job(request_id, "gated", steps=steps, n=n))
    await until(drawing, step(request_id, 0, steps))
    return drawing


def kill(client: ImageClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)


def states(client: ImageClient) -> list[tuple[str, str]]:
    return [(one.request_id, one.state) for one in client.queue.jobs]


# Drawing


def test_a_job_s_events_come_in_order_and_end(stage: Stage, new_loop: Loop) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            drawn: list[Drawn] = []
            client.on_drawn = drawn.append
            events = await all_of(client.draw(job("a", n=2, seed=7)))
            expected: list[Event] = [JobStarted("a")]
            for index in (0, 1):
                expected += [step("a", n, index=index) for n in (0, 1, 2)]
                expected.append(Drawn("a", index, f"draw {7 + index} ".encode(), 7 + index, 1.0, 2.0, 2))
            assert events == [*expected, JobFinished("a")]
            assert drawn == [event for event in events if isinstance(event, Drawn)]
            assert (client.queue.n_running, client.queue.n_waiting, client.queue.jobs) == (0, 0, [])

    run(main(), new_loop)


def test_pictures_reach_the_worker_as_they_are(stage: Stage) -> None:
    async def main() -> None:
        data = os.urandom(300 * 200 * 3)
        async with stage.ready() as client:
            events = await all_of(client.draw(job("a", init=Pixels(300, 200, 3, data))))
            assert images(events) == [b"draw 0 " + data]

    run(main())


def test_what_a_draw_raises_is_raised_after_what_came_before_it_and_the_next_job_is_right(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            drawing = client.draw(job("a", "fail"))
            await until(drawing, step("a", 2))
            with pytest.raises(InvalidRequest, match="no such sampler") as caught:
                await drawing.batch()
            assert caught.value.field == "sampler"
            with pytest.raises(ServerFault, match="a bug"):
                await all_of(client.draw(job("b", "bug")))
            assert images(await all_of(client.draw(job("c")))) == [b"draw 0 "]
            assert client.n_restarts == 0

    run(main())


def test_a_first_load_that_fails_is_final_and_says_why(stage: Stage) -> None:
    async def main() -> None:
        async with stage.client("refuse,fine") as client:
            with pytest.raises(ModelLoadError, match=r"fake\.gguf is no model"):
                await client.wait_ready()
            assert client.state is WorkerState.FAILED
            with pytest.raises(Unavailable, match="could not be loaded"):
                client.draw(job("a"))

    run(main())


# The queue


def test_jobs_wait_in_order_and_hear_of_their_places(stage: Stage, new_loop: Loop) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            first = await held(client, "a")
            others = [client.draw(job(name)) for name in "bcd"]
            assert states(client) == [("a", "drawing"), ("b", "waiting"), ("c", "waiting"), ("d", "waiting")]
            assert client.queue.jobs[0] == JobState("a", "drawing", 0, 2, 0, 1)
            assert [await other.batch() for other in others] == [
                [Queued(name, place)] for place, name in enumerate("bcd", 1)
            ]
            assert (client.queue.n_running, client.queue.n_waiting) == (1, 3)
            stage.let(3)
            assert len(images(await all_of(first))) == 1
            told = [await all_of(other) for other in others]
            places = [[event.place for event in events if isinstance(event, Queued)] for events in told]
            # What a consumer has not read when the next place is told is not told.
            assert places[0] == []
            assert places[1] in ([1], [])
            assert places[2][-1:] in ([1], [])
            assert all(isinstance(events[-1], JobFinished) for events in told)

    run(main(), new_loop)


def test_jobs_are_drawn_in_the_order_in_which_they_came(stage: Stage) -> None:
    async def main() -> None:
        order: list[str] = []
        async with stage.ready() as client:
            client.on_drawn = lambda drawn: order.append(drawn.request_id)
            first = await held(client, "a")
            others = [client.draw(job(name)) for name in "bcde"]
            stage.let(3)
            await asyncio.gather(*map(all_of, [first, *others]))
            assert order == list("abcde")

    run(main())


def test_a_full_queue_refuses_and_says_when_to_come_back(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready(n_parallel=1) as client:
            first = await held(client, "a", steps=5)
            waiting = client.draw(job("b"))
            with pytest.raises(QueueFull, match="queue is full") as caught:
                client.draw(job("c"))
            assert caught.value.retry_after == 1
            stage.clock.now = 10.0
            stage.let()
            await until(first, step("a", 1, 5))
            with pytest.raises(QueueFull) as caught:
                client.draw(job("c"))
            assert caught.value.retry_after == 40  # four steps of ten seconds
            stage.let(5)
            await all_of(first)
            third = client.draw(job("c"))
            assert [len(images(await all_of(one))) for one in (waiting, third)] == [1, 1]

    run(main())


def test_a_waiting_job_that_is_aborted_is_dropped_at_once(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready(n_parallel=2) as client:
            first = await held(client, "a")
            second, third = client.draw(job("b")), client.draw(job("c"))
            assert await third.batch() == [Queued("c", 2)]
            second.abort()
            second.abort()
            assert await second.batch() == []
            assert states(client) == [("a", "drawing"), ("c", "waiting")]
            assert await third.batch() == [Queued("c", 1)]
            stage.let(3)
            await all_of(first)
            assert len(images(await all_of(third))) == 1
            assert client.n_restarts == 0

    run(main())


def test_a_slow_consumer_costs_nobody_anything_and_gets_its_image(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            slow, other = client.draw(job("slow", "flood 10000")), client.draw(job("other"))
            assert len(images(await all_of(other))) == 1  # drawn after the flood, so that has arrived by now
            events = await all_of(slow)
            assert len(events) <= 4096
            assert len(images(events)) == 1
            assert step("slow", 10000, 10000) in events

    run(main())


ACTIONS = {"abort": 4, "read, abort": 4, "kill": 1, "wait": 4, "stay": 12}
"""How often a client does what. After each death the jobs wait until the next worker has started, which takes longest.
"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("script", ["fine", "cancel"])
def test_whatever_clients_and_workers_do_each_job_ends_as_it_should(stage: Stage, script: str, seed: int) -> None:
    """Whoever stays gets its image, or hears that the worker died with it; in order, and nothing is left behind."""
    chance = random.Random(seed)

    async def main() -> None:
        order: list[int] = []
        n_deaths = 0
        async with stage.ready(script, n_parallel=1000) as client:
            client.on_drawn = lambda drawn: order.append(drawn.seed)
            staying: dict[int, asyncio.Task[list[Event]]] = {}
            for i in range(60):
                await client.wait_ready()
                drawing = client.draw(job(str(i), chance.choice([f"draw {i}", f"flood {i}"]), seed=i))
                stage.clock.now += chance.choice([0.0, 1.0])
                [action] = chance.choices([*ACTIONS], [*ACTIONS.values()])
                if action == "read, abort":
                    await drawing.batch()
                if action.endswith("abort"):
                    drawing.abort()
                else:
                    staying[i] = asyncio.create_task(all_of(drawing))
                if action == "wait":
                    await asyncio.wait([staying[i]])
                if action == "kill" and client.state is WorkerState.READY:
                    kill(client)
                    n_deaths += 1
                    await client.wait_change()
            ends = await asyncio.gather(*staying.values(), return_exceptions=True)
            failed = [end for end in ends if isinstance(end, BaseException)]
            assert all(isinstance(end, Unavailable) for end in failed)
            assert len(failed) <= n_deaths
            assert all(len(images(end)) == 1 for end in ends if not isinstance(end, BaseException))
            assert order == sorted(order)
            served = [i for i, end in zip(staying, ends, strict=True) if not isinstance(end, BaseException)]
            assert set(served) <= set(order)
            await client.wait_ready()
            assert len(images(await all_of(client.draw(job("last"))))) == 1
            assert (client.queue.n_running, client.queue.n_waiting) == (0, 0)

    run(main())


# A client that leaves its running job


def test_a_job_is_cancelled_where_the_library_can(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with stage.ready("cancel") as client:
            pid = client.pid
            first = await held(client, "a", steps=1000)
            second = client.draw(job("b"))
            first.abort()
            first.abort()
            assert await first.batch() == []
            assert states(client)[0] == ("a", "leaving")
            assert len(images(await all_of(second))) == 1
            assert (client.pid, client.n_restarts) == (pid, 0)

    with caplog.at_level(logging.INFO):
        run(main())
    assert "job a is cancelled" in caplog.text


def test_the_worker_is_restarted_when_that_is_cheaper_than_finishing(
    stage: Stage, new_loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            pid = client.pid
            first = await held(client, "a", steps=4)
            second, third = client.draw(job("b")), client.draw(job("c"))
            stage.clock.now = 5.0
            stage.let()
            await until(first, step("a", 1, 4))
            first.abort()
            assert client.state is WorkerState.RESTARTING
            told = await asyncio.gather(all_of(second), all_of(third))
            assert [len(images(events)) for events in told] == [1, 1]
            assert client.pid != pid
            assert client.n_restarts == 0
            assert client.state is WorkerState.READY
            # Nobody is under suspicion: the same job is drawn, as often as it is asked for.
            stage.let(10)
            for name in "de":
                assert len(images(await all_of(client.draw(job(name, "gated", steps=4))))) == 1

    with caplog.at_level(logging.INFO):
        run(main(), new_loop)
    assert "the worker is restarted: the client of job a left, about 15.0 s of its image are left" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_an_image_that_is_nearly_done_goes_on_for_nobody_and_those_after_it_do_not(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with stage.client("gated") as client:
            while client.progress < 0.5:
                await client.wait_change()
            stage.clock.now = 100.0  # so long takes a load
            stage.let()
            await client.wait_ready()
            pid = client.pid
            drawn: list[Drawn] = []
            client.on_drawn = drawn.append
            first = await held(client, "a", steps=4, n=9)
            second = client.draw(job("b"))
            stage.clock.now = 105.0
            stage.let()
            await until(first, step("a", 1, 4))
            first.abort()
            assert await first.batch() == []
            assert client.state is WorkerState.READY
            assert states(client) == [("a", "leaving"), ("b", "waiting")]
            await stage.has_cancelled()
            stage.let(4)
            assert len(images(await all_of(second))) == 1
            assert (client.pid, client.n_restarts) == (pid, 0)
            assert [one.request_id for one in drawn] == ["a", "b"]

    with caplog.at_level(logging.INFO):
        run(main())
    assert caplog.text.count("job a goes on to the end of its image") == 1
    assert "about 15.0 s of its image are left, and a restart takes about 100.0 s" in caplog.text


def test_whether_to_restart_is_decided_when_the_first_step_is_measured(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            pid = client.pid
            first = await held(client, "a", steps=4)
            second = client.draw(job("b"))
            first.abort()
            assert client.state is WorkerState.READY
            stage.clock.now = 5.0
            stage.let()
            assert len(images(await all_of(second))) == 1
            assert client.pid != pid

    run(main())


# Deaths


def test_a_death_costs_the_running_job_only(stage: Stage, new_loop: Loop) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            running = await held(client, "a")
            waiting = [client.draw(job(name)) for name in "bc"]
            kill(client)
            with pytest.raises(Unavailable, match="ended while it served"):
                await running.batch()
            assert client.state is WorkerState.RESTARTING
            assert states(client) == [("b", "waiting"), ("c", "waiting")]
            with pytest.raises(Unavailable, match="ended unexpectedly and is being restarted"):
                client.draw(job("too early"))
            told = await asyncio.gather(*map(all_of, waiting))
            assert [len(images(events)) for events in told] == [1, 1]
            assert client.n_restarts == 1
            assert len(images(await all_of(client.draw(job("next"))))) == 1

    run(main(), new_loop)


def test_reloads_that_fail_are_tried_again_and_jobs_wait_for_them(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready("fine,refuse,refuse,fine") as client:
            await held(client, "a")
            waiting = client.draw(job("b"))
            kill(client)
            assert len(images(await all_of(waiting))) == 1
            assert client.n_restarts == 3

    run(main())


def test_a_waiting_job_can_leave_while_there_is_no_worker(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            await held(client, "a")
            leaving, staying = client.draw(job("b")), client.draw(job("c"))
            kill(client)
            await client.wait_change()
            leaving.abort()
            events = await all_of(staying)
            assert len(images(events)) == 1
            assert states(client) == []

    run(main())


def test_a_job_that_killed_two_workers_is_refused_whatever_its_seed_and_no_other(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            for i in range(2):
                with pytest.raises(Unavailable):
                    await all_of(client.draw(job(f"killer {i}", "die SIGSEGV", seed=i)))
                await client.wait_ready()
            with pytest.raises(ServerFault, match="refused"):
                client.draw(job("killer again", "die SIGSEGV", seed=9))
            assert len(images(await all_of(client.draw(job("other"))))) == 1
            assert client.n_restarts == 2

    run(main())


def test_copies_of_a_killer_that_wait_are_refused_after_the_second_death(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            first = await held(client, "a")
            killers = [client.draw(job(f"killer {i}", "die SIGKILL", seed=i)) for i in range(3)]
            last = client.draw(job("last"))
            stage.let(3)
            assert len(images(await all_of(first))) == 1
            for killer in killers[:2]:
                with pytest.raises(Unavailable):
                    await all_of(killer)
            with pytest.raises(ServerFault, match="refused"):
                await all_of(killers[2])
            assert len(images(await all_of(last))) == 1
            assert client.n_restarts == 2

    run(main())


# Stopping


def test_stopping_ends_what_runs_and_what_waits_and_leaves_no_process(stage: Stage, new_loop: Loop) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            pid = client.pid
            assert pid is not None
            drawings = [await held(client, "a"), client.draw(job("b"))]
            await asyncio.gather(client.stop(5.0), client.stop(5.0))
            assert not exists(pid)
            for drawing in drawings:
                with pytest.raises(Unavailable, match="stopping"):
                    await all_of(drawing)
                drawing.abort()
            with pytest.raises(Unavailable, match="stopping"):
                client.draw(job("c"))

    run(main(), new_loop)


def test_an_idle_worker_stops_in_order(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            assert len(images(await all_of(client.draw(job("a"))))) == 1

    with caplog.at_level(logging.INFO):
        run(main())
    assert "exited with code 0" in caplog.text


def test_a_worker_that_gets_a_sigterm_says_so_and_draws_on(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            first = await held(client, "a")
            assert client.pid is not None
            os.kill(client.pid, signal.SIGTERM)
            await client.stop_asked.wait()
            stage.let(3)
            assert len(images(await all_of(first))) == 1
            assert client.state is WorkerState.READY

    run(main())


def test_jobs_that_come_during_a_planned_restart_wait_for_its_end(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            first = await held(client, "a", steps=4)
            stage.clock.now = 5.0
            stage.let()
            await until(first, step("a", 1, 4))
            first.abort()
            assert (client.state, client.takes_jobs) == (WorkerState.RESTARTING, True)
            late = [client.draw(job(str(i))) for i in range(client.config.n_parallel)]
            with pytest.raises(QueueFull):
                client.draw(job("one too many"))
            told = await asyncio.gather(*map(all_of, late))
            assert [len(images(events)) for events in told] == [1] * len(late)

    run(main())


def test_stopping_during_a_planned_restart_starts_nothing(stage: Stage) -> None:
    async def main() -> None:
        async with stage.ready() as client:
            first = await held(client, "a", steps=4)
            waiting = client.draw(job("b"))
            stage.clock.now = 5.0
            stage.let()
            await until(first, step("a", 1, 4))
            first.abort()
            assert client.state is WorkerState.RESTARTING
            await client.stop(5.0)
            with pytest.raises(Unavailable, match="stopping"):
                await all_of(waiting)
            assert client.pid is None
            assert client.state is WorkerState.STOPPED

    run(main())


# Side by side


def test_two_image_clients_and_a_text_client_are_nothing_to_each_other(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        other_stage = Stage(tmp_path, Clock(), stage.pipe)
        async with (
            stage.ready() as one,
            other_stage.ready() as other,
            ready_client(tmp_path / "text lives") as text,
        ):
            running = await held(one, "a")
            assert len(images(await all_of(other.draw(job("a"))))) == 1
            kill(one)
            with pytest.raises(Unavailable):
                await running.batch()
            assert await text_of(text.generate(submit("a", "echo right"))) == "right"
            assert len(images(await all_of(other.draw(job("b"))))) == 1
            await one.wait_ready()
            assert [client.n_restarts for client in (one, other, text)] == [1, 0, 0]

    run(main())
