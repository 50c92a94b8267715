"""Hypercorn's protocols on sockets of our own.

Hypercorn's own loop does not let go of the transport, and ASGI cannot end a connection whose send buffer is full: one
client that stops reading would stay for ever, and from Python 3.12 on keep the server from ending. Here each connection
is known, and one sweep for all of them cuts off those that take nothing. To Hypercorn that is a lost connection, which
every request hears of as `http.disconnect`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from llamabox import background
from llamabox.server.http.record import RUNNING, RequestRecord
from llamabox.server.listening.arrival import KEY as ARRIVAL
from llamabox.server.listening.arrival import Arrival
from llamabox.server.listening.binding import BACKLOG
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.h2_streams import harden_h2
from llamabox.server.listening.patient_server import PatientServer
from llamabox.server.listening.target import Targets
from llamabox.server.listening.unread import SECONDS, ReadsOn

logger = logging.getLogger(__name__)

N_PROBES = 4
"""TCP's questions to a silent client that may go unanswered."""

MAX_HEADERS = 64 * 1024
"""Bytes of request line and headers."""


RESERVED = 128
"""File descriptors that connections leave to the rest of the process."""

SPARE = 64
"""Connections over the limit that get a reply: the health, or that there are too many."""


@dataclass(slots=True, eq=False)
class Connection:
    """One client's, since when its unsent bytes have not changed in number, and the requests that run on it."""

    transport: asyncio.WriteTransport
    task: asyncio.Task[None] | None
    is_over: bool = False  # beyond the limit of connections
    is_ending: bool = False
    n_unsent: int = 0
    since: float = 0.0
    running: set[RequestRecord] = field(default_factory=set)


class Listener:
    """Takes connections from `start` to `close`. Belongs to the event loop; the sockets are its own from `start` on."""

    def __init__(
        self, app: ASGIApp, config: ListenConfig, sockets: list[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        self._limit = 2 * config.max_body  # bytes, and below seconds, that are read after a reply
        self._seconds = min(config.timeout, SECONDS)
        outermost = ReadsOn(Targets(app), self._limit, self._seconds)
        self._app = wrap_app(outermost, 0, "asgi")  # type: ignore[arg-type]  # Starlette's ASGI types are looser
        harden_h2()
        self._hypercorn = hypercorn_config(config)
        self._sockets = sockets
        self.conn_idle = config.conn_idle
        self.stall_timeout = min(config.timeout, config.stall_timeout)
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls,
                "ssl_handshake_timeout": config.keep_alive,
                "ssl_shutdown_timeout": self.stall_timeout,  # for bytes that are still unsent
            }
        self._context = WorkerContext(None)
        self._servers: list[asyncio.Server] = []
        self._max_connections = config.max_connections
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # without a request, the longest idle first
        self._n_ending = 0  # connections that are closed to make room, until they are gone
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def n_connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Accepts from here on."""
        self._max_connections = min(self._max_connections, _descriptors_to_spare())
        for sock in self._sockets:
            _probe_when_idle(sock, self.conn_idle)
            serve = partial(self._serve, is_loopback=_is_loopback(sock))
            self._servers.append(await asyncio.start_server(serve, sock=sock, backlog=BACKLOG, **self._tls))
        self._sweeper = background.spawn(self._sweep(), "the sweep for clients that are too slow")

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_loopback: bool) -> None:
        if self._n_over >= 0 and self._idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.is_ending = True
            self._n_ending += 1
            oldest.transport.abort()
        if self._n_over >= SPARE:
            writer.transport.abort()
            return
        connection = Connection(writer.transport, asyncio.current_task(), is_over=self._n_over >= 0)
        self._connections.add(connection)
        self._idle[connection] = None
        RUNNING.set(connection.running)
        state: dict[str, Any] = {}  # which each request of the connection sees
        try:
            server = PatientServer(
                self._app,
                asyncio.get_running_loop(),
                self._hypercorn,
                self._context,
                state,
                reader,
                writer,
                on_idle=partial(self._note_idle, connection),
                limit=self._limit,
                seconds=self._seconds,
            )
            state[ARRIVAL] = Arrival(is_loopback, partial(self._is_over, connection), server.write_piece)
            await server
        except Exception:
            logger.debug("a connection ended badly", exc_info=True)
        finally:
            self._connections.discard(connection)
            self._idle.pop(connection, None)
            self._n_ending -= connection.is_ending

    @property
    def _n_over(self) -> int:
        """The number of connections beyond the limit; 0 when it is just reached."""
        return len(self._connections) - self._n_ending - self._max_connections

    def _is_over(self, connection: Connection) -> bool:
        """Whether a connection is one too many: it was when it came, and there was no room since."""
        connection.is_over = connection.is_over and self._n_over > 0
        return connection.is_over

    def _note_idle(self, connection: Connection, is_idle: bool) -> None:
        self._idle.pop(connection, None)
        if is_idle:
            self._idle[connection] = None

    async def _sweep(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self.stall_timeout / 4)
            for connection in self._connections:
                try:
                    self._look(connection, time())
                except Exception:  # one connection must not end the sweep for all
                    logger.exception("a connection could not be looked at")

    def _look(self, connection: Connection, now: float) -> None:
        n_unsent = connection.transport.get_write_buffer_size()
        if n_unsent != connection.n_unsent:
            connection.n_unsent, connection.since = n_unsent, now
        elif n_unsent and now - connection.since >= self.stall_timeout:
            self._cut_off(connection)

    def _cut_off(self, connection: Connection) -> None:
        """The log says so in the line of each request that this ends, or in one of its own."""
        why = f"the client is too slow: it took none of {connection.n_unsent} bytes for {self.stall_timeout:g} s"
        for record in connection.running:
            record.cut(why)
        if not connection.running:
            logger.info("a connection without a request cut_off=%s", why)
        connection.transport.abort()


def _descriptors_to_spare() -> int:
    """The number of connections that the limit of open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft // 4, soft - RESERVED - SPARE)


def _is_loopback(sock: socket.socket) -> bool:
    """Whether the socket listens on loopback, where only this machine reaches it."""
    if sock.family == socket.AF_UNIX:
        return False
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def _probe_when_idle(sock: socket.socket, seconds: int) -> None:
    """Have TCP probe idle connections: from a machine that is gone comes no end. Accepted sockets inherit it."""
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


def hypercorn_config(config: ListenConfig) -> Config:
    """Hypercorn's settings. `keep_alive` decides how long a connection may wait for a request."""
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
