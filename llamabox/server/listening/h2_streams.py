"""HTTP/2 as Hypercorn speaks it, but no event of one stream ends the connection of all.

Behind a proxy the streams of one connection are many users'. Hypercorn lets an exception of any of them end them all:
data of a stream that has been answered, a path that is not ASCII, priorities of a thousand streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PriorityUpdated, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from hypercorn import protocol
from hypercorn.events import Closed, RawData
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol import h2
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed, Trailers
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer

logger = logging.getLogger(__name__)

PART = 4 << 10
"""Bytes that are parsed at once: some 65 of the smallest requests."""

AT_ONCE = 8
"""Requests that are begun before others get their turn: each has a task, which runs up to its first wait."""

RESETS_AT_ONCE = 1000
RESETS_PER_SECOND = 33.0
"""The requests that a client may take back, at once and in the long run: nghttp2's numbers."""


class BoundedBuffer(StreamBuffer):
    """Hypercorn's buffer of a stream, but a shut window wakes nobody.

    Hypercorn's wakes its writer whenever something was taken out, even if that was nothing because the client's window
    is shut: such a stream is buffered without end, at megabytes a second where it carries probabilities.
    """

    async def pop(self, max_length: int) -> bytes:
        """The bytes that may go out now."""
        if max_length == 0 and self.buffer:
            return b""
        return await super().pop(max_length)


class SturdyH2(H2Protocol):
    """One connection. An error of a stream resets that stream alone."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._sending: set[int] = set()  # streams whose request has not ended
        self._n_resets = 0.0  # that count now; each is forgotten after a while
        self._last_reset = 0.0

    async def handle(self, event: ConnectionEvent) -> None:
        """Read what came a part at a time: thousands of requests fit into one read, and others are served between."""
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        for start in range(0, len(event.data), PART):
            if self.connection.state_machine.state is ConnectionState.CLOSED:
                return
            await super().handle(RawData(event.data[start : start + PART]))
            await asyncio.sleep(0)

    async def _handle_events(self, events: list[Event]) -> None:
        n_begun = 0
        for event in events:
            stream_id: int | None = getattr(event, "stream_id", None)
            if isinstance(event, PriorityUpdated):
                continue  # RFC 9113 gave priorities up, and Hypercorn keeps each for ever
            if isinstance(event, RequestReceived):
                self._sending.add(event.stream_id)
                n_begun += 1
                if n_begun % AT_ONCE == 0:
                    await asyncio.sleep(0)
            elif isinstance(event, StreamEnded | StreamReset):
                self._sending.discard(event.stream_id)
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamReset) and not self._may_reset():
                logger.info("a client took back over %d requests: cut off", RESETS_AT_ONCE)
                self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
                await self._flush()
                await self.send(Closed())
                return
            else:
                try:
                    await super()._handle_events([event])
                except Exception:
                    if not stream_id:
                        raise
                    logger.debug("HTTP/2 stream %d is reset", stream_id, exc_info=True)
                    await self._drop(stream_id)
        await self._flush()

    async def stream_send(self, event: StreamEvent) -> None:
        """Forget a stream that ended with trailers: Hypercorn keeps it, and breaks at the thousandth."""
        await super().stream_send(event)
        if isinstance(event, Trailers):
            await self._forget(event.stream_id)
            await self._end_request(event.stream_id)

    async def _send_data(self, stream_id: int) -> None:
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:
            await self._end_request(stream_id)

    async def _end_request(self, stream_id: int) -> None:
        """The reply is out. A client that still sends is told that the rest is not needed (RFC 9113, 8.1)."""
        if stream_id in self._sending:
            await self._reset(stream_id, ErrorCodes.NO_ERROR)

    async def _drop(self, stream_id: int) -> None:
        """Ends a stream that cannot be served."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None and hasattr(stream, "app_put"):  # else it broke before it reached the app
            await stream.handle(StreamClosed(stream_id=stream_id))
        await self._forget(stream_id)
        await self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR)

    async def _forget(self, stream_id: int) -> None:
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
        with contextlib.suppress(KeyError):  # priority.MissingStreamError
            self.priority.remove_stream(stream_id)

    async def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._sending.discard(stream_id)
        with contextlib.suppress(ProtocolError):  # it ended in the meantime
            self.connection.reset_stream(stream_id, code)
        await self._flush()

    def _may_reset(self) -> bool:
        """Counts one more, in a bucket that leaks."""
        now = asyncio.get_running_loop().time()
        self._n_resets = max(0.0, self._n_resets - RESETS_PER_SECOND * (now - self._last_reset)) + 1
        self._last_reset = now
        return self._n_resets <= RESETS_AT_ONCE


def harden_h2() -> None:
    """Have Hypercorn make SturdyH2 connections from now on: it offers no option for that. Idempotent."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
    protocol.H2Protocol = SturdyH2  # type: ignore[attr-defined,assignment]
