"""The signals that end a server, while its event loop runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Signals are caught before what serves is imported.
    from llamabox.server.hosted.seams import Service

logger = logging.getLogger(__name__)

FORCE_SECONDS = 2.0
"""Seconds for the worker to end after a second signal."""


@contextlib.contextmanager
def catching_signals(client: Service) -> Iterator[asyncio.Event]:
    """SIGTERM and SIGINT: the first asks for an orderly end, which sets the event, the second for one now."""
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    forcing: set[asyncio.Task[None]] = set()

    def on_signal() -> None:
        if not signalled.is_set():
            signalled.set()
        elif not forcing:
            logger.warning("stopping at once")
            forcing.add(loop.create_task(_force(client)))
        else:
            logging.shutdown()
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield signalled
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _force(client: Service) -> None:
    """End the worker and then this process, without waiting for requests."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(FORCE_SECONDS):
            await client.stop(0.0)
    logging.shutdown()
    os._exit(1)
