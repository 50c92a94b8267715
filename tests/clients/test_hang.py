"""A worker that hangs dies of it: what ran in it fails, and another takes its place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from llamabox.clients.state import WorkerState
from llamabox.clients.text.client import TextClient
from llamabox.errors import NativeError, Unavailable
from tests.clients.harness import make_client, ready_client, run, submit, text_of
from tests.clients.image.image_harness import Clock, Stage, all_of, images, job

LIMIT = 1.0
"""Seconds; on a busy machine a process may well be silent for half of them."""


async def served_again(client: TextClient) -> None:
    while client.state is not WorkerState.RESTARTING:
        await client.wait_change()
    await client.wait_ready()
    assert client.n_restarts == 1
    assert await text_of(client.generate(submit("after", "echo hello"))) == "hello"


def test_stopped_while_idle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=LIMIT) as client:
            assert client.pid is not None
            os.kill(client.pid, signal.SIGSTOP)
            await served_again(client)

    run(main())
    assert "the text worker gave no sign of life for 1 s (--hang-timeout): killing it" in caplog.text


@pytest.mark.parametrize("command", ["die SIGSTOP", "block", "clutch"])
def test_a_step_that_never_ends(tmp_path: Path, command: str) -> None:
    """The process stopped; a call into C that never returns; one that keeps the interpreter's lock."""

    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=LIMIT) as client:
            running = client.generate(submit("held", "hold"))
            await running.batch()
            hung = client.generate(submit("hung", command))
            again = asyncio.create_task(served_again(client))
            for generation in (running, hung):
                with pytest.raises(Unavailable, match="ended while it served this request"):
                    await generation.batch()
            await again

    run(main())


def test_a_request_that_hangs_two_workers_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=LIMIT) as client:
            for _ in range(2):
                await client.wait_ready()
                with pytest.raises(Unavailable):
                    await client.generate(submit("hung", "block")).batch()
            await client.wait_ready()
            with pytest.raises(Exception, match="refused for an hour"):
                client.generate(submit("hung", "block"))

    run(main())


def test_a_load_may_take_long(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_client(tmp_path / "lives", "slow", hang_timeout=LIMIT) as client:
            await client.wait_ready()
            assert client.n_restarts == 0

    run(main())


def test_stopped_during_the_first_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_client(tmp_path / "lives", "stopped", hang_timeout=LIMIT) as client:
            with pytest.raises(NativeError, match=r"gave no sign of life for 1 s while it loaded stopped"):
                await client.wait_ready()

    run(main())


def test_without_a_limit_nobody_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=0.0) as client:
            assert client.pid is not None
            os.kill(client.pid, signal.SIGSTOP)
            await asyncio.sleep(2 * LIMIT)
            assert client.state is WorkerState.READY
            os.kill(client.pid, signal.SIGCONT)
            assert await text_of(client.generate(submit("after", "echo hello"))) == "hello"

    run(main())


def test_a_debugger_may_hold_a_worker(tmp_path: Path) -> None:
    code = (
        "import ctypes, sys; word = ctypes.c_ulong; PTRACE_SEIZE = 0x4206\n"
        "assert ctypes.CDLL(None).ptrace(word(PTRACE_SEIZE), word(int(sys.argv[1])), word(0), word(0)) == 0\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )

    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=LIMIT) as client:
            assert client.pid is not None
            pipe = asyncio.subprocess.PIPE
            command = (sys.executable, "-c", code, str(client.pid))
            debugger = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            assert debugger.stdout is not None
            assert await debugger.stdout.readline() == b"held\n"
            os.kill(client.pid, signal.SIGSTOP)
            await asyncio.sleep(3 * LIMIT)
            assert client.state is WorkerState.READY
            await debugger.communicate(b"")  # it leaves the worker stopped, as it was told to be
            await served_again(client)

    run(main())


def test_a_worker_that_goes_on_in_time_is_not_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready_client(tmp_path / "lives", hang_timeout=4 * LIMIT) as client:
            assert client.pid is not None
            os.kill(client.pid, signal.SIGSTOP)
            await asyncio.sleep(LIMIT)
            os.kill(client.pid, signal.SIGCONT)
            assert await text_of(client.generate(submit("after", "echo hello"))) == "hello"
            assert client.n_restarts == 0

    run(main())


@pytest.mark.parametrize("moment", ["idle", "drawing"])
def test_an_image_worker_likewise(tmp_path: Path, moment: str) -> None:
    """What waits for it is drawn by the next."""
    os.mkfifo(tmp_path / "gate")
    pipe = os.open(tmp_path / "gate", os.O_RDWR)
    stage = Stage(tmp_path, Clock(), pipe)

    async def main() -> None:
        async with stage.ready(hang_timeout=LIMIT) as client:
            assert client.pid is not None
            hurt = client.draw(job("hurt", "gated")) if moment == "drawing" else None
            waiting = None if hurt is None else client.draw(job("waiting"))
            os.kill(client.pid, signal.SIGSTOP)
            if hurt is not None:
                with pytest.raises(Unavailable, match="ended while it served this request"):
                    await all_of(hurt)
            while client.state is WorkerState.READY:
                await client.wait_change()
            await client.wait_ready()
            assert client.n_restarts == 1
            assert images(await all_of(waiting or client.draw(job("next"))))

    run(main())
    os.close(pipe)
