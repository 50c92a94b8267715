"""The server process' first moments: bind, start the worker, and import what serves while that one loads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from llamabox.machine.heap import map_large_blocks
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.doors import open_doors
from llamabox.server.signals import catching_signals

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

    The client that `make_client` makes is started before anything else is imported. `importer` is called on another
    thread meanwhile: it imports the kind of Hosted for that client, and returns its maker.
    Raises, before anything is loaded, ListenError and OptionsError as `open_doors` does.
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
    doors = open_doors(config)
    client = make_client()
    with ExitStack() as opened, catching_signals(client) as signalled:
        opened.callback(doors.close)
        await client.start()
        try:
            with ThreadPoolExecutor(1, "imports") as importing:  # the loop must be free to spawn
                host = await asyncio.get_running_loop().run_in_executor(importing, _imported, importer)
            from llamabox.server.app import create_app
            from llamabox.server.run import serve

            app = create_app(config, host(client))
            opened.pop_all()  # `serve` closes them
            return await serve(config, app, doors, signalled)
        finally:
            await client.stop(0.0)  # where something could not be imported


def _imported(importer: Callable[[], Host[C]]) -> Host[C]:
    import llamabox.server.app
    import llamabox.server.run  # noqa: F401

    return importer()
