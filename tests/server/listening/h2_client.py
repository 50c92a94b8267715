"""A client that speaks HTTP/2 frame by frame, in clear text and without manners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from tests.server.harness import Running, hang_up


class H2Client:
    """One connection. `events` is all that came so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = H2Connection(
            H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self._reader, self._writer = reader, writer
        self.events: list[Event] = []
        self.is_closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, server: Running[Any]) -> AsyncIterator[H2Client]:
        reader, writer = await server.connect()
        try:
            client = cls(reader, writer)
            client.connection.initiate_connection()
            await client.flush()
            yield client
        finally:
            await hang_up(writer)

    async def flush(self) -> None:
        self._writer.write(self.connection.data_to_send())
        await self._writer.drain()

    def ask(self, method: str = "GET", path: str = "/health", *headers: tuple[str, str], end: bool = True) -> int:
        """Opens a stream; sent with the next flush."""
        stream_id = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path), *headers]
        self.connection.send_headers(stream_id, head, end_stream=end)
        return stream_id

    async def receive(self) -> None:
        """The next events."""
        await self.flush()
        data = await self._reader.read(1 << 16)
        if not data:
            self.is_closed = True
            return
        for event in self.connection.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived):
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def until(self, kind: type[Event], stream_id: int | None = None) -> Event:
        """The first event of this kind, of this stream where one is named."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                    return event
            assert not self.is_closed, f"the connection ended before {kind.__name__}; there came {self.events}"
            await self.receive()

    async def status(self, stream_id: int) -> int:
        """Of a whole reply."""
        await self.until(StreamEnded, stream_id)
        response = await self.until(ResponseReceived, stream_id)
        assert isinstance(response, ResponseReceived)
        return int(dict(response.headers)[b":status"])

    async def upload(self, stream_id: int, n_bytes: int) -> None:
        """As much data as that, as the windows allow; stops where the server resets the stream."""
        while n_bytes:
            if any(isinstance(event, StreamReset) and event.stream_id == stream_id for event in self.events):
                return
            size = min(n_bytes, self.connection.local_flow_control_window(stream_id), 1 << 14)
            if size == 0:
                await self.receive()
                assert not self.is_closed, "the connection ended amid an upload"
                continue
            self.connection.send_data(stream_id, bytes(size), end_stream=size == n_bytes)
            n_bytes -= size
            await self.flush()

    @property
    def goaway(self) -> int | None:
        """The error code of the GOAWAY that came, if one did."""
        ends = [event for event in self.events if isinstance(event, ConnectionTerminated)]
        return None if not ends or ends[0].error_code is None else int(ends[0].error_code)
