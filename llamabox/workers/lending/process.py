"""The process of one client: waits for it, lends the device, and ends with it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from llamabox.bindings import backend
from llamabox.bindings.ffi import Native, load
from llamabox.bindings.log import LogPump
from llamabox.bindings.rpc.server import LentDevice, file_hash, pick_device
from llamabox.bindings.spin import spin_briefly
from llamabox.errors import LlamaboxError, to_wire
from llamabox.lending.cache import ClientFolder, TensorCache
from llamabox.lending.settings import BEAT, READY, LenderSettings
from llamabox.wire.signs.pulse import LONGEST_PAUSE, pause
from llamabox.workers.lending.loopback import Loopback
from llamabox.workers.lending.relay import move
from llamabox.workers.orphan import die_with_parent

logger = logging.getLogger("llamabox.native")

KEEP_SECONDS = 1.0
"""Seconds between two looks for tensors to keep."""

OOM_SCORE = 800
"""Where memory runs out the kernel ends this process, not the one that listens."""


def describe(settings: LenderSettings) -> int:
    """Writes the lent device as JSON to stdout, or the error that keeps it from being lent."""
    try:
        native = load(settings.native)
        native.lib.lb_log_forget_error()
        backend.start(native)
        if settings.main_gpu >= 0:
            backend.require_gpu(native, "lend the CPU with --rpc-server-main-gpu -1")
        reply: object = asdict(lend(native, settings).device)
    except LlamaboxError as error:
        reply = to_wire(error)
    sys.stdout.write(json.dumps(reply))
    sys.stdout.flush()
    return 0


def lend(native: Native, settings: LenderSettings) -> LentDevice:
    """Raises OptionsError for a device that there is not, or that the reserve leaves nothing of."""
    return LentDevice(native, pick_device(native, settings.main_gpu), settings.reserve)


def serve(fd: int, settings: LenderSettings) -> int:
    """Live the life of a lender. The device is opened only for a client: a GPU's memory is not spent on waiting."""
    die_with_parent()
    _stay_small()
    # Other clients' processes compute beside this one, and perhaps the client itself.
    spin_briefly(os.environ)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    with socket.socket(fileno=fd) as control:
        try:
            native = load(settings.native)
            backend.start(native)
            control.sendall(READY)
            client = _receive(control)
            if client is not None:
                with client, LogPump(native, logger):
                    _serve_client(native, settings, control, client)
        except LlamaboxError as error:
            logger.error("%s", error.message)
            return 1
    return 0


def _receive(control: socket.socket) -> socket.socket | None:
    """The client's connection; None where the listener ended instead."""
    _, fds, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(fileno=fds[0]) if fds else None


def _serve_client(native: Native, settings: LenderSettings, control: socket.socket, client: socket.socket) -> None:
    """Returns when either side closed the connection, or the listener ended."""
    lent = lend(native, settings)
    _limit_memory(lent)
    with _folder(settings) as folder:
        path = None if folder is None else str(folder.path)
        loopback = Loopback(lambda endpoint: lent.serve(endpoint, path, settings.n_threads))
        over = threading.Event()

        def to_client() -> None:
            move(loopback.connection, client)
            over.set()
            control.shutdown(socket.SHUT_RDWR)  # wakes the wait below

        threading.Thread(target=move, args=(client, loopback.connection), name="from client", daemon=True).start()
        threading.Thread(target=to_client, name="to client", daemon=True).start()
        seconds = min(KEEP_SECONDS, pause(settings.hang_timeout) or LONGEST_PAUSE)
        while not select.select([control], [], [], seconds)[0]:
            with contextlib.suppress(OSError):  # the listener is busy, or about to be found gone
                control.send(BEAT, socket.MSG_DONTWAIT)
            _keep(native, folder)
        if over.is_set():
            _keep(native, folder)


@contextlib.contextmanager
def _folder(settings: LenderSettings) -> Iterator[ClientFolder | None]:
    """The client's folder of the tensor cache while the client is here. None where there can be no folder."""
    if settings.cache is None:
        yield None
        return
    try:
        folder = TensorCache(Path(settings.cache), settings.cache_size).open()
    except OSError as error:
        logger.warning("no tensor cache, %s: %s", settings.cache, error.strerror)
        yield None
        return
    try:
        yield folder
    finally:
        folder.remove()


def _keep(native: Native, folder: ClientFolder | None) -> None:
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.keep(lambda path: file_hash(native, path))


def _stay_small() -> None:
    """An abort inside ggml must not write the memory of a whole model to disk, nor start a debugger."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # 1 and not 0: the kernel takes 0 as no limit where the core goes to a program.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _limit_memory(lent: LentDevice) -> None:
    """Limit memory on a CPU to what the client was told: ggml allocates any length that a message announces."""
    if lent.device.kind != "cpu":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = lent.device.memory_total if hard == resource.RLIM_INFINITY else min(hard, lent.device.memory_total)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
