"""The openai package, unmodified, asks for pictures."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import openai
import pytest
from PIL import Image

from llamabox.errors import QueueFull, Unavailable
from llamabox.imaging.events import Event
from llamabox.imaging.job import ImageJob
from tests.server.fake_images import FakeImageClient, drawing, png
from tests.server.harness import running_images

Play = Callable[[openai.AsyncOpenAI, FakeImageClient], Awaitable[None]]


def scene(play: Play, client: FakeImageClient | None = None) -> None:
    async def act() -> None:
        async with running_images(client or FakeImageClient()) as served:
            url = f"http://127.0.0.1:{served.port}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as asking:
                await play(asking, served.client)

    asyncio.run(act())


def opened(text: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(text)))


def test_generate() -> None:
    async def play(asking: openai.AsyncOpenAI, client: FakeImageClient) -> None:
        for side in (256, 512, 1024):
            reply = await asking.images.generate(
                prompt="a cat",
                n=2,
                size=f"{side}x{side}",
                response_format="b64_json",
                quality="standard",
                style="vivid",
                user="me",
            )
            assert [opened(image.b64_json or "").size for image in reply.data or []] == [(side, side)] * 2
        assert (await asking.images.generate(prompt="a cat", size="auto", output_format="png")).created > 0

    scene(play)


@pytest.mark.parametrize("n_partial", [0, 2])
def test_a_streamed_picture_comes_in_the_clients_own_events(n_partial: int) -> None:
    async def play(asking: openai.AsyncOpenAI, client: FakeImageClient) -> None:
        stream = await asking.images.generate(
            prompt="a cat", n=2, size="256x256", stream=True, partial_images=n_partial, extra_body={"seed": 7}
        )
        partial: list[int] = []
        done: list[object] = []
        async for event in stream:
            if event.type == "image_generation.partial_image":
                assert opened(event.b64_json).size == (8, 8)
                partial.append(event.partial_image_index)
            elif event.type == "image_generation.completed":
                done.append(opened(event.b64_json).getpixel((0, 0)))
                assert (event.size, event.output_format, event.background) == ("256x256", "png", "opaque")
                assert event.created_at > 0
        assert partial == list(range(n_partial)) * 2
        assert done == [(0, 0, 7), (0, 0, 8)]

    scene(play)


def test_edit() -> None:
    async def play(asking: openai.AsyncOpenAI, client: FakeImageClient) -> None:
        image, mask = ("a.png", png("red"), "image/png"), ("m.png", png("white"), "image/png")
        more: dict[str, Any] = {"prompt": "a hat", "n": 2, "size": "256x256"}
        reply = await asking.images.edit(image=image, mask=mask, response_format="b64_json", **more)
        assert [opened(one.b64_json or "").size for one in reply.data or []] == [(256, 256)] * 2
        stream = await asking.images.edit(image=[image], stream=True, extra_body={"seed": 3, "strength": 0.5}, **more)
        kinds = [event.type async for event in stream]
        assert kinds.count("image_edit.completed") == 2
        first, second = client.jobs
        assert first.init is not None
        assert first.mask is not None
        assert (second.mask, second.seed, second.strength) == (None, 3, 0.5)

    scene(play)


def test_errors_are_the_clients_own() -> None:
    async def play(asking: openai.AsyncOpenAI, client: FakeImageClient) -> None:
        with pytest.raises(openai.BadRequestError, match="'n'"):
            await asking.images.generate(prompt="a cat", n=5)
        with pytest.raises(openai.BadRequestError, match="'image'"):
            await asking.images.edit(prompt="a cat", image=("a.png", b"no picture"))
        with pytest.raises(openai.BadRequestError, match="'response_format'"):
            await asking.images.generate(prompt="a cat", response_format="url")
        client.refusal = QueueFull("full", retry_after=2)
        with pytest.raises(openai.InternalServerError, match="full"):
            await asking.images.generate(prompt="a cat")

    scene(play)


def test_an_error_amid_a_stream_is_raised() -> None:
    def breaking(job: ImageJob) -> list[Event]:
        return drawing(job)[:3]

    async def play(asking: openai.AsyncOpenAI, client: FakeImageClient) -> None:
        client.after = Unavailable("the worker ended")
        stream = await asking.images.generate(prompt="a cat", stream=True)
        with pytest.raises(openai.APIError, match="the worker ended"):
            async for _ in stream:
                pass

    scene(play, FakeImageClient(breaking))
