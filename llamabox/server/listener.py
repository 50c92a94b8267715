"""Hypercorn's protocols on sockets of our own.

Hypercorn's own loop does not let go of the transport, and ASGI cannot end a connection whose send buffer is full: one
client that stops reading would stay for ever, and from Python 3.12 on keep the server from ending. Here each connection
is known, and one sweep for all of them cuts off those that take nothing. To Hypercorn that is a lost connection, which
every request hears of as `http.disconnect`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from llamabox.server.config import ServerConfig
from llamabox.server.h2_streams import harden_h2
from llamabox.server.unread import ReadsOn

logger = logging.getLogger(__name__)

BACKLOG = 1024

N_PROBES = 4
"""TCP's questions to a silent client that may go unanswered."""

MAX_HEADERS = 64 * 1024
"""Bytes of request line and headers."""


@dataclass(slots=True, eq=False)
class Connection:
    """One client's, and since when its unsent bytes have not changed in number."""

    transport: asyncio.WriteTransport
    task: asyncio.Task[None] | None
    n_unsent: int = 0
    since: float = 0.0


class Listener:
    """Takes connections from `start` to `close`. Belongs to the event loop; the sockets are its own from `start` on."""

    def __init__(
        self, app: ASGIApp, config: ServerConfig, sockets: list[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        outermost = ReadsOn(app, 2 * config.max_body)
        self._app = wrap_app(outermost, 0, "asgi")  # type: ignore[arg-type]  # Starlette's ASGI types are looser
        harden_h2()
        self._hypercorn = _hypercorn_config(config)
        self._sockets = sockets
        self._conn_idle = config.conn_idle
        self._stall_timeout = min(config.timeout, config.stall_timeout)
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls,
                "ssl_handshake_timeout": config.keep_alive,
                "ssl_shutdown_timeout": self._stall_timeout,  # what is still unsent goes out within it
            }
        self._context = WorkerContext(None)
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def n_connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Accepts from here on."""
        for sock in self._sockets:
            _probe_when_idle(sock, self._conn_idle)
            self._servers.append(await asyncio.start_server(self._serve, sock=sock, backlog=BACKLOG, **self._tls))
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop_accepting(self) -> None:
        """No new connection; idle ones are closed, busy ones after their reply."""
        for server in self._servers:
            server.close()
        await self._context.terminated.set()

    async def close(self, grace: float) -> None:
        """Waits up to `grace` seconds for the connections to end, then ends them. Idempotent."""
        await self.stop_accepting()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for connection in self._connections:
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait((self._sweeper,))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer.transport, asyncio.current_task())
        self._connections.add(connection)
        loop = asyncio.get_running_loop()
        try:
            await TCPServer(self._app, loop, self._hypercorn, self._context, {}, reader, writer)
        except Exception:
            logger.debug("a connection ended badly", exc_info=True)
        finally:
            self._connections.discard(connection)

    async def _sweep(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._stall_timeout / 4)
            for connection in self._connections:
                n_unsent = connection.transport.get_write_buffer_size()
                if n_unsent != connection.n_unsent:
                    connection.n_unsent, connection.since = n_unsent, time()
                elif n_unsent and time() - connection.since >= self._stall_timeout:
                    logger.info("a client took none of its %d bytes for %g s: cut off", n_unsent, self._stall_timeout)
                    connection.transport.abort()


def _probe_when_idle(sock: socket.socket, seconds: int) -> None:
    """Of a client whose machine is gone nothing comes, not even an end. Accepted sockets inherit it."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPALIVE", seconds),  # macOS' name of it
        ("TCP_KEEPINTVL", seconds),
        ("TCP_KEEPCNT", N_PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _hypercorn_config(config: ServerConfig) -> Config:
    hypercorn = Config()
    hypercorn.accesslog = None  # middleware.RequestId writes the one line there is
    hypercorn.errorlog = logging.getLogger("llamabox.hypercorn")
    hypercorn.include_server_header = False
    hypercorn.h11_max_incomplete_size = MAX_HEADERS
    hypercorn.h2_max_header_list_size = MAX_HEADERS
    hypercorn.keep_alive_timeout = config.keep_alive  # also the time a client has for its headers
    hypercorn.keep_alive_max_requests = 1_000_000
    # read_timeout stays off: it would end a connection that is silent because it waits for its answer.
    return hypercorn
