"""A web server on loopback that serves pictures, and everything that a stranger's server might do instead."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class HostileServer:
    """What it serves by path, and what it was asked."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)  # whole responses; the connection is closed behind them
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    n_ended_early: int = 0  # bodies without an end that their reader left

    @property
    def paths(self) -> list[str]:
        return [head.split(b" ")[1].decode() for head in self.heads]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self._answer(self.paths[-1], writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.transport.abort()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path in self.answers:
            writer.write(self.answers[path])
        elif path in self.bodies:
            body = self.bodies[path]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif path == "/silence":
            await asyncio.sleep(3600)
        elif path in ("/trickle", "/endless"):
            await self._go_on(path, writer)
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def _go_on(self, path: str, writer: asyncio.StreamWriter) -> None:
        """10 MB, a byte now and then; or a body without an end."""
        length = b"Content-Length: 10000000\r\n" if path == "/trickle" else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        try:
            while True:
                writer.write(b"x" if path == "/trickle" else bytes(1 << 16))
                await writer.drain()
                await asyncio.sleep(0.02 if path == "/trickle" else 0)
        except OSError:
            self.n_ended_early += 1
            raise


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
    made = HostileServer()
    server = await asyncio.start_server(made.accept, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
