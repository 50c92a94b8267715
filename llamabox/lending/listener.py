"""The process that listens: whom it lets in, and a process of its own for each. It holds no native code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from llamabox import background
from llamabox.errors import ListenError, LlamaboxError
from llamabox.lending import allow, hello
from llamabox.lending.cache import TensorCache
from llamabox.lending.config import RpcConfig
from llamabox.lending.connection import Hangups, prepare, traffic
from llamabox.lending.lender import Lender, SpareLender, describe
from llamabox.lending.settings import LenderSettings
from llamabox.log import entries as log
from llamabox.machine.exits import describe_exit

T = TypeVar("T")

logger = logging.getLogger(__name__)

BACKLOG = 128

LEFT = "left"
"""The outcome of a client that went by itself."""

STOPPED = "is cut off: the server stops"

MAX_CLIENTS = 64
"""At a time, a process each."""

MAX_WAITING = 64
"""Connections without a HELLO; for one more the oldest has to go."""

LEAVE_SECONDS = 5.0
"""Seconds in which a lender may end by itself after its client closed the connection."""

STAY_SECONDS = 1.0
"""Seconds after which a client's coming is logged: loading a model takes a dozen connections that ask and leave."""

ACCEPT_PAUSE = 0.1
"""Seconds after accepting failed, as it does while descriptors are short."""


class RpcListener:
    """Accepts clients on `sock`, which it owns. Belongs to the running event loop; `close` has to be awaited."""

    def __init__(self, config: RpcConfig, sock: socket.socket) -> None:
        self._config = config
        self._sock = sock
        self._settings = LenderSettings.of(config)
        self._spare = SpareLender(self._settings)
        self._hangups = Hangups()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], None] = {}  # in order of arrival
        self._n_clients = 0

    def start(self) -> None:
        self._spare.fill()
        self._spawn(self._accept())

    async def close(self) -> None:
        """Stops accepting, ends the clients' processes, and returns when they are reaped."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._sock.close()
        await self._spare.close()
        self._hangups.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = background.spawn(work, "serving RPC clients")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                logger.warning("cannot accept: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            try:
                self._meet(sock, address)
            except Exception:  # one client must not make us deaf for all
                logger.exception("a client could not be let in")
                sock.close()

    def _meet(self, sock: socket.socket, address: tuple[str, int]) -> None:
        peer = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        if not allow.is_allowed(address[0], self._config.allow):
            logger.warning("%s turned away: --rpc-server-allow does not have its address", peer)
            sock.close()
            return
        self._await_hello(sock, peer)

    def _await_hello(self, sock: socket.socket, peer: str) -> None:
        if len(self._waiting) >= MAX_WAITING:
            next(iter(self._waiting)).cancel()
        task = self._spawn(self._visit(sock, peer))
        self._waiting[task] = None
        task.add_done_callback(lambda task: self._waiting.pop(task, None))

    async def _visit(self, sock: socket.socket, peer: str) -> None:
        """The whole of one connection."""
        with sock:
            with contextlib.suppress(OSError):
                prepare(sock)
            try:
                reason = await hello.why_not(sock)
            except asyncio.CancelledError:
                logger.info("%s turned away: it sent no HELLO, and others wait", peer)
                raise
            task = asyncio.current_task()
            assert task is not None
            self._waiting.pop(task, None)
            if reason is None and self._n_clients >= MAX_CLIENTS:
                reason = f"{MAX_CLIENTS} clients are served already"
            if reason is not None:
                logger.warning("%s turned away: %s", peer, reason)
                return
            self._n_clients += 1
            try:
                await self._serve(sock, peer)
            finally:
                self._n_clients -= 1

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        started = time.monotonic()
        sock.setblocking(True)  # as the process needs it, with which this is shared
        try:
            lender = await self._spare.serve(sock)
        except (OSError, LlamaboxError) as error:
            logger.error("%s turned away: %s", peer, error)
            return
        lender.name = f"{peer}, process {lender.pid}"
        logger.log(log.MORE, "%s came: process %d", peer, lender.pid)
        staying = asyncio.get_running_loop().call_later(STAY_SECONDS, self._log_staying, peer, lender.pid)
        outcome = STOPPED
        try:
            outcome = await self._outcome(sock, lender)
        finally:
            await lender.close()
            if self._config.cache is not None:
                TensorCache(Path(self._config.cache), self._config.cache_size).clear_after(lender.pid)
            staying.cancel()
            level = log.MORE if time.monotonic() - started < STAY_SECONDS else logging.INFO
            if outcome not in (LEFT, STOPPED):
                level = logging.WARNING
            logger.log(level, "%s %s (%s)", peer, outcome, _figures(sock, started))

    def _log_staying(self, peer: str, pid: int) -> None:
        logger.info("%s is served by process %d, one of %d clients", peer, pid, self._n_clients)

    async def _outcome(self, sock: socket.socket, lender: Lender) -> str:
        """Waits for the end of the client or of its process, and says which it was."""
        ended = asyncio.create_task(lender.ended())
        hung = asyncio.create_task(lender.hung(self._config.hang_timeout))
        left = asyncio.create_task(self._hangups.watch(sock).wait())
        try:
            await asyncio.wait({ended, left, hung}, return_when=asyncio.FIRST_COMPLETED)
            if hung.done():
                return "is cut off: its process gave no sign of life (--hang-timeout) and is killed"
            has_left = left.done()
            if not ended.done():
                await asyncio.wait({ended}, timeout=LEAVE_SECONDS)
            if not ended.done():
                return f"left; its process was still at work after {LEAVE_SECONDS:g} s and was ended"
            code = ended.result()
            if code != 0:
                return f"lost its process, which {describe_exit(code)}: {lender.last_line}"
            if not lender.last_line:
                return LEFT
            return f"left after ggml said: {lender.last_line}" if has_left else f"was sent away: {lender.last_line}"
        finally:
            self._hangups.forget(sock)
            for task in (ended, left, hung):
                task.cancel()
            await asyncio.wait({ended, left, hung})


def _figures(sock: socket.socket, started: float) -> str:
    seconds = f"{time.monotonic() - started:.1f} s"
    counts = traffic(sock)
    if counts is None:
        return seconds
    sent, received = counts
    return f"{seconds}, {_size(received)} received, {_size(sent)} sent"


def _size(n_bytes: int) -> str:
    if n_bytes < 10_000:
        return f"{n_bytes} bytes"
    return f"{n_bytes / 2**10:.0f} KiB" if n_bytes < 10 << 20 else f"{n_bytes / 2**20:.0f} MiB"


def run(config: RpcConfig) -> int:
    """`serve` on an event loop of its own. Returns the process' exit code."""
    with asyncio.Runner() as runner:
        return runner.run(serve(config))


async def serve(config: RpcConfig) -> int:
    """Lends the device until SIGTERM or SIGINT, then returns 0.

    Raises, before anybody is let in, ListenError where the address cannot be had, OptionsError where there is no such
    device, the reserve leaves nothing of it or the cache's folder cannot be written, NativeMissing, NativeMismatch.
    """
    sock = bind(config.host, config.port)
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    try:
        if config.cache is not None:
            TensorCache(Path(config.cache), config.cache_size).prepare()
        device = await _unless(signalled, describe(LenderSettings.of(config)))
        if device is None:
            return 0
        listener = RpcListener(config, sock)
        listener.start()
        try:
            _announce(config, sock, device)
            await signalled.wait()
            logger.info("stopping")
        finally:
            await listener.close()
        return 0
    finally:
        sock.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work, or None where the event comes first, which cancels the work."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait({working, waiting})


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address. `::` takes IPv4 as well. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {host}:{port} for RPC clients: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def _announce(config: RpcConfig, sock: socket.socket, device: dict[str, Any]) -> None:
    host, port = sock.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    logger.info(
        "lending %s (%s), %d MiB, %d MiB free%s, on %s",
        *(device["name"], device["description"], device["memory_total"] >> 20, device["memory_free"] >> 20),
        *(f", {config.reserve >> 20} MiB kept back" if config.reserve else "", where),
    )
    logger.warning(
        "ggml's RPC protocol has no authentication and no encryption: whoever connects may use the memory and the "
        "processors of this machine. Let in: %s",
        allow.shown(config.allow),
    )
    if wide := allow.beyond_private(config.allow):
        logger.warning(
            "--rpc-server-allow lets in more than loopback and private addresses: %s. Never leave this port open to "
            "the Internet",
            allow.shown(wide),
        )
