"""A server that records requests and plays prepared answers, on a port of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FakeServer:
    """`answers` maps a path to the texts that are sent for it, one a request; the last one again and again."""

    answers: dict[str, list[str]]
    status: int = 200
    url: str = ""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split()[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        self.requests.append((path, headers, body))
        prepared = self.answers[path]
        text = (prepared.pop(0) if len(prepared) > 1 else prepared[0]).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (self.status, len(text)) + text
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@contextmanager
def serving(answers: dict[str, list[str]], status: int = 200) -> Iterator[FakeServer]:
    """Runs a FakeServer in a thread for the length of the block."""
    server = FakeServer(answers, status)
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listening:
            server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def sse(*events: object, done: bool = True) -> str:
    """The text of a stream."""
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join(lines) + ("data: [DONE]\n\n" if done else "")
