"""The worker that is served, over the real library and a model that draws what it is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llamabox.clients.image.client import ImageClient
from llamabox.demo import ensure_demo_model
from llamabox.errors import ModelLoadError, Unavailable
from llamabox.imaging.config import ImageConfig
from llamabox.imaging.events import JobProgress
from llamabox.imaging.job import ImageJob
from tests.clients.harness import exists
from tests.clients.image.image_harness import all_of, images
from tests.models.tiny_image import TinyImage

pytestmark = [pytest.mark.model, pytest.mark.slow]

PATIENCE = 300.0
"""Seconds for a test; a machine that is busy elsewhere draws ten times as slowly."""

MAX_GROWTH = 4 * 1024
"""KiB that a worker may grow by from its fifth image to its fifteenth."""


def config_of(tiny: TinyImage, **fields: Any) -> ImageConfig:
    return ImageConfig(model=str(tiny.model), taesd_model=str(tiny.taesd), n_parallel=4, n_threads=1, **fields)


@asynccontextmanager
async def ready(tiny: TinyImage) -> AsyncIterator[ImageClient]:
    async with asyncio.timeout(PATIENCE), ImageClient(config_of(tiny)) as client:
        await client.wait_ready()
        yield client


def job(request_id: str, **fields: Any) -> ImageJob:
    fields = {"prompt": "a red circle on a blue background", "width": 128, "height": 128, "steps": 1, **fields}
    return ImageJob(request_id=request_id, **fields)


async def drawn(client: ImageClient, **fields: Any) -> list[bytes]:
    return images(await all_of(client.draw(job("drawn", **fields))))


def anonymous_memory(pid: int) -> int:
    """KiB of the process' own, files that it maps aside."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_a_worker_killed_while_it_draws_costs_that_job_only_and_the_next_is_right(tiny_image: TinyImage) -> None:
    async def main() -> None:
        async with ready(tiny_image) as client:
            right = await drawn(client, seed=7)
            running = client.draw(job("running", steps=50))
            waiting = client.draw(job("waiting", seed=7))
            while not any(isinstance(event, JobProgress) for event in await running.batch()):
                pass
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(Unavailable, match="ended while it served"):
                await all_of(running)
            assert images(await all_of(waiting)) == right
            assert await drawn(client, seed=7) == right
            assert await drawn(client, seed=8) != right
            assert client.n_restarts == 1

    asyncio.run(main())


def test_a_client_that_leaves_is_drawn_for_no_longer_and_the_log_says_how(
    tiny_image: TinyImage, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with ready(tiny_image) as client:
            right = await drawn(client)
            running = client.draw(job("running", steps=500, n=4))
            waiting = client.draw(job("waiting"))
            while not any(isinstance(event, JobProgress) and event.step for event in await running.batch()):
                pass
            running.abort()
            assert images(await all_of(waiting)) == right
            assert client.n_restarts == 0

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert "job running is cancelled" in caplog.text or "the client of job running left" in caplog.text


def test_fifteen_images_leave_the_worker_as_large_as_five(tiny_image: TinyImage) -> None:
    async def main() -> None:
        async with ready(tiny_image) as client:
            assert client.pid is not None
            sizes = []
            for i in range(15):
                assert len(await drawn(client, seed=i, preview="fast", width=64, height=64)) == 1
                sizes.append(anonymous_memory(client.pid))
            assert max(sizes[5:]) - sizes[4] < MAX_GROWTH

    asyncio.run(main())


def test_a_worker_ends_in_order_and_at_once_even_while_it_draws(tiny_image: TinyImage) -> None:
    async def main() -> None:
        async with ready(tiny_image) as client:
            running = client.draw(job("running", steps=500))
            while not any(isinstance(event, JobProgress) for event in await running.batch()):
                pass
            pid = client.pid
            assert pid is not None
            await client.stop(grace=PATIENCE)
            assert not exists(pid)

    asyncio.run(main())


@pytest.mark.parametrize("what", ["missing", "no model", "a text model"])
def test_a_model_that_cannot_be_loaded_is_refused_with_a_reason(tmp_path: Path, what: str) -> None:
    path = ensure_demo_model(progress=False) if what == "a text model" else tmp_path / "x.gguf"
    if what == "no model":
        path.write_bytes(b"GGUF" + bytes(100))

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), ImageClient(ImageConfig(model=str(path))) as client:
            with pytest.raises(ModelLoadError, match=path.name):
                await client.wait_ready()

    asyncio.run(main())


SERVER = """
import asyncio, json, sys
from pathlib import Path

from llamabox.engine.request import GenerationParams
from llamabox.imaging.job import ImageJob
from llamabox.clients.text.client import TextClient
from llamabox.clients.image.client import ImageClient
from llamabox.imaging.config import ImageConfig
from llamabox.wire.text import Submit
from llamabox.wire.text_config import TextConfig

def libraries(pid):
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sorted({Path(line.split()[-1]).name for line in lines if ".so" in line})

async def texts(client):
    submit = Submit(request_id="t", prompt=["Once upon a time"], params=GenerationParams(n_predict=8))
    generation, kinds = client.generate(submit), []
    while batch := await generation.batch():
        kinds += [type(event).__name__ for event in batch]
    return kinds

async def pictures(client):
    job = ImageJob(request_id="i", prompt="a red circle on a blue background", width=128, height=128, steps=2)
    drawing, kinds = client.draw(job), []
    while batch := await drawing.batch():
        kinds += [type(event).__name__ for event in batch]
    return kinds

async def main(text_model, image_model, taesd):
    text = TextClient(TextConfig(model=text_model, n_ctx=256, n_threads=1))
    image = ImageClient(ImageConfig(model=image_model, taesd_model=taesd, n_threads=1))
    async with text, image:
        await asyncio.gather(text.wait_ready(), image.wait_ready())
        told = await asyncio.gather(texts(text), pictures(image))
        pids = {"server": "self", "text": text.pid, "image": image.pid}
        print(json.dumps({"told": told, **{name: libraries(pid) for name, pid in pids.items()}}))

asyncio.run(main(*sys.argv[1:]))
"""


def test_beside_a_text_worker_each_has_a_library_of_its_own_and_the_server_none(tiny_image: TinyImage) -> None:
    command = [sys.executable, "-c", SERVER, ensure_demo_model(progress=False), tiny_image.model, tiny_image.taesd]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout)
    texts, pictures = found["told"]
    assert texts[-1] == "Finished"
    assert pictures[-2:] == ["Drawn", "JobFinished"]
    assert "libllama.so" in found["text"]
    assert "libstable-diffusion.so" in found["image"]
    ours = [name for name in found["server"] if "llama" in name or "ggml" in name or "diffusion" in name]
    assert ours == []
    assert "libstable-diffusion.so" not in found["text"]
    assert [name for name in found["image"] if "libllama" in name or "ggml" in name] == []
