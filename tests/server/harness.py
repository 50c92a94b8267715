"""The app behind a real Hypercorn on a real loopback socket, in this process and on this event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import httpx
import orjson
from starlette.applications import Starlette

from llamabox.imaging.config import ImageConfig
from llamabox.media.desk import MediaDesk
from llamabox.server.app import create_app
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.images import HostedImages
from llamabox.server.hosted.text import HostedText
from llamabox.server.listening.binding import bind_sockets
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.listener import Listener
from llamabox.server.listening.tls import tls_context
from tests.server.fake_client import FakeTextClient
from tests.server.fake_images import IMAGES, FakeImageClient

WITHIN = 60.0
"""Seconds after which a test that waits for an event has failed."""


Client = TypeVar("Client")

Config = ListenConfig | ModelConfig | None
"""Of the port, or of the model behind it; what is not given is as by default."""


def parts(configs: Sequence[Config]) -> tuple[ListenConfig, ModelConfig]:
    listen = [config for config in configs if isinstance(config, ListenConfig)] or [ListenConfig()]
    model = [config for config in configs if isinstance(config, ModelConfig)] or [ModelConfig()]
    return listen[0], model[0]


def by_field(given: Mapping[str, Any]) -> tuple[ListenConfig, ModelConfig]:
    """Both configurations of their fields' values, which have no name in common."""
    names = {field.name for field in fields(ListenConfig)}
    listen = {name: value for name, value in given.items() if name in names}
    return ListenConfig(**listen), ModelConfig(**{name: value for name, value in given.items() if name not in names})


def text_app(client: FakeTextClient, *configs: Config, media: MediaDesk | None = None) -> Starlette:
    listen, model = parts(configs)
    return create_app(listen, HostedText(model, client, media))


def image_app(client: FakeImageClient, *configs: Config, images: ImageConfig = IMAGES) -> Starlette:
    listen, model = parts(configs)
    return create_app(listen, HostedImages(model, client, images))


@dataclass
class Running(Generic[Client]):
    app: Starlette
    client: Client
    http: httpx.AsyncClient
    port: int
    listener: Listener

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def post_raw(self, path: str, body: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request on a connection of its own, its reply still unread."""
        reader, writer = await self.connect()
        data = orjson.dumps(body)
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data
        )
        await writer.drain()
        return reader, writer


@contextlib.asynccontextmanager
async def running(
    client: FakeTextClient,
    *configs: Config,
    media: MediaDesk | None = None,
    host: str = "127.0.0.1",
    within: float = WITHIN,
) -> AsyncIterator[Running[FakeTextClient]]:
    """Serves `client` until the block ends; fails rather than hangs."""
    app = text_app(client, *configs, media=media)
    async with listening(app, client, parts(configs)[0], within, host=host) as served:
        yield served


@contextlib.asynccontextmanager
async def running_images(
    client: FakeImageClient, *configs: Config, images: ImageConfig = IMAGES
) -> AsyncIterator[Running[FakeImageClient]]:
    """The same with a client that draws."""
    async with listening(image_app(client, *configs, images=images), client, parts(configs)[0]) as served:
        yield served


@contextlib.asynccontextmanager
async def listening(
    app: Starlette, client: Client, config: ListenConfig, within: float = WITHIN, *, host: str = "127.0.0.1"
) -> AsyncIterator[Running[Client]]:
    """Any app on a socket of its own."""
    sockets = bind_sockets([host], 0)
    port = sockets[0].getsockname()[1]
    listener = Listener(app, config, sockets, tls_context(config))
    await listener.start()
    try:
        # Unverified, as it is plain HTTP: to read the system's certificates would take longer than most of the tests.
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN, verify=False)
        async with http, asyncio.timeout(within):
            yield Running(app, client, http, port, listener)
    finally:
        await listener.close(grace=0.5)
        await app.state.site.hosted.close()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Ends a connection whatever is under way on it."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def events(text: str) -> list[object]:
    """The data of an event stream: parsed, but for [DONE]."""
    found: list[object] = []
    for event in text.split("\n\n"):
        if event.startswith("data: "):
            data = event.removeprefix("data: ")
            found.append(data if data == "[DONE]" else orjson.loads(data))
    return found
