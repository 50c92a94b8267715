"""What nobody expects in a thread of a worker ends it, with its trace in the log; the next one serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llamabox.clients.state import WorkerState
from llamabox.clients.supervisor import Backoff
from llamabox.clients.text.client import TextClient
from llamabox.engine.request import GenerationParams
from llamabox.errors import LlamaboxError
from llamabox.wire.questions import SaveSlot, Tokenise
from llamabox.wire.text import Submit
from llamabox.wire.text_config import TextConfig
from llamabox.workers.escape import EXIT_ESCAPED
from llamabox.workers.text.long_texts import MIN_BYTES
from tests.clients.harness import worker_env
from tests.clients.image.image_harness import Clock, Stage, all_of, job

WITHIN = 120.0


def submit(request_id: str, prompt: str = "Hello", **params: Any) -> Submit:
    return Submit(request_id=request_id, prompt=[prompt], params=GenerationParams(n_predict=4, **params))


async def ask(client: TextClient, submit: Submit) -> None:
    async with client.generate(submit) as generation:
        while await generation.batch():
            pass


async def ask_often(client: TextClient, grammar: str) -> None:
    """Until the worker ends: a mask that its own thread has not begun when it is wanted is computed by the engine's."""
    for number in count():
        if client.n_restarts or client.state is not WorkerState.READY:
            return
        await ask(client, submit(f"often {number}", grammar=grammar))


def provoke(client: TextClient, fault: str, folder: Path) -> Coroutine[Any, Any, Any]:
    match fault:
        case "long texts":
            return client.ask(Tokenise(["a" * (MIN_BYTES + 1)], add_special=False, parse_special=False))
        case "masks":
            return ask_often(client, 'root ::= ("a" | "b")+')
        case "grammars":
            return ask(client, submit("1", grammar='root ::= "a" | "b"'))
        case "slot files":
            return client.ask(SaveSlot(0, str(folder / "slot")))
    return ask(client, submit("1", "injected"))


@pytest.mark.model
@pytest.mark.parametrize(
    "fault", ["channel reader", "long texts", "MainThread", "masks", "grammars", "slot files", "pulse", "SIGTERM"]
)
def test_in_a_thread_of_a_text_worker(
    tiny_text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    config = TextConfig(model=str(tiny_text), n_ctx=512, n_threads=1, hang_timeout=4.0)
    env = {**worker_env(tmp_path / "lives"), "FAULT": fault}
    backoff = Backoff(first=0.01, most=0.05)

    async def main() -> None:
        async with (
            asyncio.timeout(WITHIN),
            TextClient(config, module="tests.clients.faulty_worker", env=env, backoff=backoff) as client,
        ):
            await client.wait_ready()
            asking = asyncio.ensure_future(provoke(client, fault, tmp_path))
            if fault == "SIGTERM":
                assert client.pid is not None
                os.kill(client.pid, signal.SIGTERM)
            while client.state is not WorkerState.RESTARTING:
                await client.wait_change()
            with contextlib.suppress(LlamaboxError):  # answered before, or told that its worker ended
                await asking
            await client.wait_ready()
            assert client.n_restarts == 1
            await ask(client, submit("2"))

    asyncio.run(main())
    log = capfd.readouterr().err
    assert f"thread {fault}" in log
    assert " ends this worker" in log
    assert "ZeroDivisionError: injected" in log


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    os.mkfifo(tmp_path / "gate")
    pipe = os.open(tmp_path / "gate", os.O_RDWR)
    yield Stage(tmp_path, Clock(), pipe)
    os.close(pipe)


def test_in_the_reader_of_an_image_worker(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WITHIN), stage.ready("faulty,fine") as client:
            hurt = client.draw(job("1"))
            with pytest.raises(LlamaboxError, match="ended while it served"):
                await all_of(hurt)
            await client.wait_ready()
            assert await all_of(client.draw(job("2")))

    asyncio.run(main())
    assert "thread channel reader ends this worker" in capfd.readouterr().err


def test_the_main_thread_does_not_wait_for_others() -> None:
    """Threads of a pool are waited for by an interpreter that ends in order."""
    code = (
        "import threading; from llamabox.workers.escape import end_on_escape; end_on_escape()\n"
        "threading.Thread(target=threading.Event().wait).start(); 1 / 0\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == EXIT_ESCAPED
    assert "ZeroDivisionError" in run.stderr
