"""What the tests of the workers share: event loops, clients of the fake worker, and how to see that a process ended."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from llamabox.clients.supervisor import Backoff
from llamabox.clients.text.client import Generation, TextClient
from llamabox.engine.events import Delta, Event
from llamabox.engine.request import GenerationParams
from llamabox.wire.questions import LayOutInfill
from llamabox.wire.text import Submit
from llamabox.wire.text_config import TextConfig

ROOT = Path(__file__).parents[2]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
DEADLINE = 120.0
"""Seconds; far more than the workers of a test take to start on a busy machine, so that only a hang fails."""


def run(
    main: Coroutine[Any, Any, None], new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
) -> None:
    """Runs it to its end, in a loop that is clean afterwards; a test that waits for ever fails."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main, DEADLINE))


def worker_env(lives: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "FAKE_LIVES": str(lives)}


def make_client(lives: Path, script: str = "fine", **arguments: Any) -> TextClient:
    arguments.setdefault("backoff", Backoff(first=0.01, most=0.05))
    hang_timeout = arguments.pop("hang_timeout", 60.0)
    return TextClient(
        TextConfig(model=script, hang_timeout=hang_timeout),
        module="tests.clients.fake_worker",
        env=worker_env(lives),
        **arguments,
    )


@asynccontextmanager
async def ready_client(lives: Path, script: str = "fine", **arguments: Any) -> AsyncIterator[TextClient]:
    async with make_client(lives, script, **arguments) as client:
        await client.wait_ready()
        yield client


def submit(request_id: str, command: str, n: int = 1) -> Submit:
    return Submit(request_id=request_id, prompt=[command], params=GenerationParams(n=n))


async def events_of(generation: Generation) -> list[Event]:
    """All that are still to come."""
    events: list[Event] = []
    while batch := await generation.batch():
        events += batch
    return events


async def text_of(generation: Generation) -> str:
    return "".join(event.text for event in await events_of(generation) if isinstance(event, Delta))


def watch(pid: int) -> Callable[[], bool]:
    """Answers, waiting if need be, whether the process of that id ended within the deadline. Call it while it lives."""
    pidfd = os.pidfd_open(pid)

    def ended() -> bool:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        try:
            return bool(poll.poll(DEADLINE * 1000))
        finally:
            os.close(pidfd)

    return ended


def exists(pid: int) -> bool:
    """Also true of a zombie."""
    return Path(f"/proc/{pid}").exists()


def command(name: str, text: str = "", number: int = 0) -> LayOutInfill:
    """A question that the fake worker takes for a command."""
    return LayOutInfill(prefix=name, suffix=text, prompt="", extra=[], n_predict=number)
