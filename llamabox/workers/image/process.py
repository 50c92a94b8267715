"""The image worker as a process: configure, load, serve, end."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable

from llamabox.bindings.spin import spin_briefly
from llamabox.errors import LlamaboxError, to_wire
from llamabox.imaging.config import ImageConfig
from llamabox.log import entries as log
from llamabox.wire.common import LoadFailed, Loading
from llamabox.wire.image import ConfigureImages, ImagesReady
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.escape import end_on_escape
from llamabox.workers.image.loop import Draws, Loop, Reader
from llamabox.workers.orphan import die_with_parent
from llamabox.workers.sigterm import watch_sigterm

Load = Callable[[ImageConfig, Callable[[float], None]], Draws]
"""Loads a model, telling the progress from 0 to 1. Raises LlamaboxError for one that cannot be served."""


CPU_SHARE = 0.2
"""Seconds of this process' CPU time that count as progress: a step, or a picture's decoding, may take minutes and says
nothing meanwhile. The pulse itself takes as many in an hour."""


def run(fd: int, load: Load) -> int:
    """The whole life of the worker whose socket is `fd`, with SIGTERM blocked. Returns the exit code."""
    die_with_parent()
    end_on_escape()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server, which stops us in order
    channel = WorkerEnd.from_fd(fd)
    stopping = threading.Event()
    watch_sigterm(channel, stopping)
    first = channel.receive()
    if first is None:
        return 0
    assert isinstance(first, ConfigureImages)
    log.setup(first.config.verbosity, first.config.log_colors, as_json=first.config.log_json)
    try:
        serve(channel, first.config, stopping, load)
    except LlamaboxError as error:
        channel.send(LoadFailed(to_wire(error)))
        stopping.set()
        channel.close()
        return 1
    return 0


def serve(channel: WorkerEnd, config: ImageConfig, stopping: threading.Event, load: Load) -> None:
    """Load, then draw until Shutdown. Raises what keeps it from loading."""
    pulse = Pulse(channel, config.hang_timeout)
    pulse.start()
    reader = Reader(channel, stopping)
    reader.start()
    spin_briefly(os.environ)
    pipeline = load(config, lambda progress: channel.send(Loading(progress)))
    pulse.watch(lambda: int(time.process_time() / CPU_SHARE), has_device=True)
    loop = Loop(channel, pipeline, pulse)
    reader.serve(loop)
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need look at it again
    channel.send(ImagesReady(pipeline.info))
    loop.run()
    pipeline.close()
    channel.close()
