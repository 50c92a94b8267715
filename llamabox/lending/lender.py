"""Lenders as the listener sees them: a process with native code for each client, and a spare one for the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys

import orjson

from llamabox import background
from llamabox.errors import LlamaboxError, ServerFault, from_wire
from llamabox.lending.settings import READY, LenderSettings
from llamabox.log.masking import without_secrets
from llamabox.machine.exits import describe_exit
from llamabox.wire.signs.vigil import Vigil, is_traced

logger = logging.getLogger(__name__)

MODULE = "llamabox.workers.lending"

MAX_LINES = 50
"""Lines of a lender's stderr that are logged: a client can make ggml complain as often as it likes."""

MAX_LINE = 500
"""Characters of such a line."""

NOISE = frozenset({"Failed to accept client connection"})
"""Lines of ggml's that are not logged: its only client has left, and there is nobody else to accept."""


class Lender:
    """A process that lends the device to one client. `close` has to be awaited, whatever became of the process."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.name = f"process {process.pid}"
        self.last_line = ""
        self._process = process
        self._control = control
        self._lines = asyncio.create_task(self._log_lines())  # `ended` awaits it
        self._is_ready = False

    @classmethod
    async def spawn(cls, settings: LenderSettings) -> Lender:
        """Start a lender, which is not ready yet. Raises OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", MODULE, str(theirs.fileno()), settings.text),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,  # ggml's greeting
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a terminal's Ctrl-C is for the listener
                    env=without_secrets(os.environ),
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def ready(self) -> None:
        """Wait until the lender can take a client. Raises ServerFault."""
        if not self._is_ready:
            self._is_ready = await asyncio.get_running_loop().sock_recv(self._control, 1) == READY
        if not self._is_ready:
            code = await self.ended()
            raise ServerFault(f"a process for a client could not start and {describe_exit(code)}: {self.last_line}")

    def take(self, client: socket.socket) -> None:
        """Give the lender a client's connection, as a descriptor of its own. Raises OSError if it has ended."""
        socket.send_fds(self._control, [b"c"], [client.fileno()])

    async def hung(self, limit: float) -> None:
        """Return when a lender with a client has given no sign of life for too long. A `limit` of 0 means none."""
        if not limit:
            await asyncio.Event().wait()
        vigil = Vigil(limit)

        async def hear() -> None:
            while await asyncio.get_running_loop().sock_recv(self._control, 1024):
                vigil.heard()

        hearing = background.spawn(hear(), f"listening to {self.name}")
        try:
            await vigil.wait(lambda: is_traced(self.pid))
        finally:
            hearing.cancel()

    async def ended(self) -> int:
        """Waits for its end and for its last line. Returns the exit code, negative for a signal."""
        code = await self._process.wait()
        await self._lines
        return code

    async def close(self) -> None:
        """End the process, whatever it does. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            if not self.has_ended:
                self._process.kill()
        self._control.close()
        await self.ended()

    async def _log_lines(self) -> None:
        assert self._process.stderr is not None
        n_lines, rest = 0, b""
        while chunk := await self._process.stderr.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:MAX_LINE]
            for line in lines:
                text = line[:MAX_LINE].decode("utf-8", "replace").strip()
                if text and text not in NOISE:
                    n_lines += 1
                    self._log_line(text, n_lines)

    def _log_line(self, text: str, n_lines: int) -> None:
        self.last_line = text
        if n_lines <= MAX_LINES:
            logger.warning("%s: %s", self.name, text)
        elif n_lines == MAX_LINES + 1:
            logger.warning("%s: what else ggml says of this client is left out", self.name)


class SpareLender:
    """Keeps one process ready, because starting one takes a client a third of a second.

    It has loaded the libraries and opened no device: some megabytes.
    """

    def __init__(self, settings: LenderSettings) -> None:
        self._settings = settings
        self._spare: Lender | None = None
        self._filling: asyncio.Task[None] | None = None

    async def serve(self, client: socket.socket) -> Lender:
        """A lender that has the client. The caller closes it. Raises OSError, ServerFault."""
        spare, self._spare = self._spare, None
        self.fill()
        if spare is not None:
            with contextlib.suppress(
                OSError, ServerFault
            ):  # it died while it waited, which is no fault of the client's
                return await self._given(spare, client)
        return await self._given(await Lender.spawn(self._settings), client)

    async def _given(self, lender: Lender, client: socket.socket) -> Lender:
        try:
            await lender.ready()
            lender.take(client)
        except BaseException:
            await lender.close()
            raise
        return lender

    def fill(self) -> None:
        """Start a spare lender where there is none. Returns at once."""
        if self._spare is None and (self._filling is None or self._filling.done()):
            self._filling = background.spawn(self._fill(), "keeping a process ready for a client")

    async def close(self) -> None:
        if self._filling is not None:
            await asyncio.wait({self._filling})
        if self._spare is not None:
            await self._spare.close()

    async def _fill(self) -> None:
        try:
            self._spare = await Lender.spawn(self._settings)
        except OSError as error:
            logger.warning("no process is kept ready: %s", error)


async def describe(settings: LenderSettings) -> dict[str, object]:
    """The lent device as clients are told of it: fields of bindings.backend.Device.

    Asked of a process of its own, which takes the device's memory with it when it ends. Raises the error that keeps
    the device from being lent, ServerFault where there is no answer.
    """
    command = (sys.executable, "-m", MODULE, "describe", settings.text)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        how = describe_exit(process.returncode or 0)
        raise ServerFault(f"the native libraries could not be asked for devices: the process that asks {how}")
    reply: dict[str, object] = orjson.loads(output)
    if "error" in reply:
        error: LlamaboxError = from_wire(reply)
        raise error
    return reply
