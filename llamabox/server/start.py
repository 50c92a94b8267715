"""The server process' first moments: its worker's process is started, and what serves is imported meanwhile.

Both import for a third of a second, which side by side is one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from llamabox.machine.heap import map_large_blocks
from llamabox.server.listening.config import ListenConfig

if TYPE_CHECKING:
    # What is imported while the worker starts.
    from llamabox.server.hosted.model import Hosted
    from llamabox.server.hosted.seams import Service

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that reads a large body gives the interpreter back to the event loop, which wants it for
each thing that happens on a socket."""

C = TypeVar("C", bound="Service")
Host = Callable[[C], "Hosted"]


def run(config: ListenConfig, make_client: Callable[[], C], importer: Callable[[], Host[C]]) -> int:
    """`serve` on an event loop of its own, uvloop's where there is one. Returns the process' exit code.

    The worker of the client that `make_client` makes is started first. `importer` is called on another thread: it
    imports the kind of Hosted for that client, and returns its maker.
    """
    map_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        import uvloop
    except ImportError:
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_serve(config, make_client, importer))


async def _serve(config: ListenConfig, make_client: Callable[[], C], importer: Callable[[], Host[C]]) -> int:
    """Client and app belong to the loop, so they are made on it."""
    client = make_client()
    client.spawn()
    try:
        with ThreadPoolExecutor(1, "imports") as importing:  # the loop must be free to spawn
            host = await asyncio.get_running_loop().run_in_executor(importing, _imported, importer)
        from llamabox.server.app import create_app
        from llamabox.server.run import serve

        return await serve(config, create_app(config, host(client)))
    finally:
        await client.stop(0.0)  # before it loads: a port that cannot be had, or an import that fails


def _imported(importer: Callable[[], Host[C]]) -> Host[C]:
    import llamabox.server.app
    import llamabox.server.run  # noqa: F401

    return importer()
