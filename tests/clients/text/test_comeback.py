"""What becomes of requests when a worker that computes on RPC servers dies: the servers are scripts behind sockets."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamabox.clients.state import WorkerState
from llamabox.clients.supervisor import Backoff
from llamabox.clients.text import comeback
from llamabox.clients.text.client import TextClient
from llamabox.engine.events import Started
from llamabox.errors import OptionsError, Unavailable
from llamabox.wire.text_config import TextConfig
from tests.clients.harness import run, submit, text_of, worker_env
from tests.clients.text.test_rpc_probe import hosted, server_of


class Server:
    """An RPC server that can be taken away and brought back under the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(hosted(server_of()), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


@asynccontextmanager
async def served(lives: Path) -> AsyncIterator[tuple[TextClient, Server]]:
    server = Server()
    await server.start()
    config = TextConfig(model="fine", rpc_servers=(server.endpoint,))
    backoff = Backoff(first=0.01, most=0.05)
    async with TextClient(config, module="tests.clients.fake_worker", env=worker_env(lives), backoff=backoff) as client:
        await client.wait_ready()
        yield client, server
    await server.stop()


def kill(client: TextClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)


async def told(client: TextClient, text: str) -> None:
    while text not in client.trouble:
        await client.wait_change()


def test_what_had_not_begun_waits_until_the_server_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path / "lives") as (client, server):
            begun = client.generate(submit("begun", "hold"))
            assert [type(event) for event in await begun.batch()] == [Started]
            queued = client.generate(submit("queued", "later x"))
            aborted = client.generate(submit("aborted", "later y"))
            await server.stop()
            kill(client)
            with pytest.raises(Unavailable, match="try again"):
                await begun.batch()
            await told(client, f"The RPC server {server.endpoint} is away: connection refused")
            assert client.state is WorkerState.RESTARTING
            with pytest.raises(Unavailable, match=server.endpoint):
                client.generate(submit("new", "echo x"))
            aborted.abort()
            await server.start()
            await client.wait_ready()
            assert client.trouble == ""
            assert await text_of(client.generate(submit("after", "echo x"))) == "x"
            assert await text_of(queued) == "x"
            assert client.n_restarts == 1

    run(main())


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comeback, "MAX_HOLD", 0.05)

    async def main() -> None:
        async with served(tmp_path / "lives") as (client, server):
            queued = client.generate(submit("queued", "later x"))
            await server.stop()
            kill(client)
            with pytest.raises(Unavailable):
                await queued.batch()
            await server.start()

    run(main())


def test_the_loss_of_a_server_is_no_requests_fault(tmp_path: Path) -> None:
    """One that was there at three losses is served; one that was there when workers died of themselves is not."""

    async def main() -> None:
        async with served(tmp_path / "lives") as (client, server):
            for i in range(3):
                begun = client.generate(submit(str(i), "hold"))
                assert [type(event) for event in await begun.batch()] == [Started]
                await server.stop()
                kill(client)
                await told(client, "is away")
                await server.start()
                await client.wait_ready()
            client.generate(submit("again", "hold")).abort()

    run(main())


def test_a_first_start_without_the_server_fails(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        await server.start()
        await server.stop()
        config = TextConfig(model="fine", rpc_servers=(server.endpoint,))
        async with TextClient(config, module="tests.clients.fake_worker", env=worker_env(tmp_path / "lives")) as client:
            with pytest.raises(OptionsError, match=f"--rpc {server.endpoint}: connection refused"):
                await client.wait_ready()
            assert client.state is WorkerState.FAILED

    run(main())
