"""The server process: serve until a signal, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette

from llamabox.errors import DOCTOR, LlamaboxError, NativeMismatch, NativeMissing, Unavailable, hint
from llamabox.server.hosted.model import Hosted
from llamabox.server.hosted.site import Site
from llamabox.server.listening.binding import describe_socket, unix_paths
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.doors import Doors
from llamabox.server.listening.listener import Listener

logger = logging.getLogger(__name__)

CLOSE_GRACE = 2.0
"""Seconds for connections to close once their requests have ended."""

EXIT_LOAD_FAILED, EXIT_NO_NATIVE = 1, 2


async def serve(config: ListenConfig, app: Starlette, doors: Doors, signalled: asyncio.Event) -> int:
    """Serves an app of app.py at its doors until `signalled` is set, or until the first load fails; the worker ends
    before. It is started here, unless it was before.

    Returns the exit code: 0 after a signal, 1 when the model cannot be loaded, 2 when the native libraries are missing
    or do not fit.
    """
    _size_thread_pool(config)
    sockets, tls = doors.sockets, doors.tls
    paths = unix_paths(sockets)
    _raise_file_limit()
    site: Site = app.state.site
    client = site.hosted.client
    listener = Listener(app, config, sockets, tls)
    try:
        await listener.start()
        await client.start()
        for sock in sockets:
            logger.info(
                "listening on %s", describe_socket(sock, "http" if tls is None else "https") + config.api_prefix
            )
        code = await _until_over(site.hosted, signalled)
        site.lifecycle.stop()
        await listener.stop_accepting()
        if code == 0:
            await _drain(site)
        return code
    finally:
        site.lifecycle.stop()
        await client.stop(CLOSE_GRACE)
        await site.hosted.close()
        await listener.close(CLOSE_GRACE)
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


async def _until_over(hosted: Hosted, signalled: asyncio.Event) -> int:
    """Waits for a signal, this process' or the worker's, or for a failed load; 0 means the former."""
    loading = asyncio.create_task(_load(hosted))
    waiting = asyncio.create_task(_asked_to_stop(hosted, signalled))
    try:
        await asyncio.wait((loading, waiting), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return 0
        code = loading.result()
        if code == 0:
            await waiting
        return code
    finally:
        for task in (loading, waiting):
            task.cancel()
        await asyncio.wait((loading, waiting))


async def _asked_to_stop(hosted: Hosted, signalled: asyncio.Event) -> None:
    """By either. The worker's is no signal of ours: systemd sends one to both, which is not asking twice."""
    asked = hosted.client.stop_asked
    waiting = [asyncio.create_task(event.wait()) for event in (signalled, asked)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    if asked.is_set() and not signalled.is_set():
        logger.info("stopping: the worker was sent SIGTERM")


async def _load(hosted: Hosted) -> int:
    """0 once the model is ready; else the exit code, after a line that says why, and one that names the doctor."""
    try:
        info = await hosted.client.wait_ready()
    except (NativeMissing, NativeMismatch) as exc:
        logger.error("%s", exc.message)
        logger.info("%s", DOCTOR)
        return EXIT_NO_NATIVE
    except Unavailable:
        return 0  # stopped while loading: the signal decides
    except LlamaboxError as exc:
        logger.error("%s", exc.message)
        if advice := hint(exc):
            logger.info("%s", advice)
        return EXIT_LOAD_FAILED
    logger.info("model ready: %s", hosted.describe())
    scales = dict(hosted.defaults.lora)
    for adapter_id, adapter in enumerate(info.lora):
        logger.info("LoRA adapter %d: %s at scale %g", adapter_id, adapter["path"], scales.get(adapter_id, 0.0))
    await hosted.warm()
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need look at it again
    return 0


async def _drain(site: Site) -> None:
    """Lets running requests end, within the grace."""
    if site.lifecycle.n_active:
        logger.info("stopping: %d requests may end first", site.lifecycle.n_active)
    try:
        async with asyncio.timeout(site.listen.shutdown_grace):
            await site.lifecycle.drained()
    except TimeoutError:
        logger.warning("stopping: %d requests are cut off", site.lifecycle.n_active)


def _size_thread_pool(config: ListenConfig) -> None:
    """Make the pool of `asyncio.to_thread`; the loop ends it."""
    if config.n_threads_http > 0:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(config.n_threads_http))


def _raise_file_limit() -> None:
    """Thousands of idle connections are a descriptor each; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
