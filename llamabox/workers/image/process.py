"""The image worker as a process: load, draw, end."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from functools import partial

from llamabox.bindings.spin import spin_briefly
from llamabox.imaging.config import ImageConfig
from llamabox.wire.common import Loading
from llamabox.wire.image import ConfigureImages, ImagesReady
from llamabox.workers import body
from llamabox.workers.body import Body
from llamabox.workers.image.loop import ImageLoop, ImagePipeline
from llamabox.workers.image.reader import ImageReader

Load = Callable[[ImageConfig, Callable[[float], None]], ImagePipeline]
"""Loads a model, telling the progress from 0 to 1. Raises LlamaboxError for one that cannot be served."""

CPU_SHARE = 0.2
"""Seconds of this process' CPU time that count as progress: a step, or a picture's decoding, may take minutes and says
nothing meanwhile. The pulse itself takes as many in an hour."""


def run(fd: int, load: Load) -> int:
    """Live the whole life of an image worker; see body.run."""
    return body.run(fd, ConfigureImages, partial(serve, load))


def serve(load: Load, body: Body, config: ImageConfig) -> None:
    """Load, then draw until Shutdown. Raises LlamaboxError where the model cannot be loaded."""
    reader = ImageReader(body)
    reader.start()
    spin_briefly(os.environ)
    pipeline = load(config, lambda progress: body.channel.send(Loading(progress)))
    body.pulse.watch(lambda: int(time.process_time() / CPU_SHARE), has_device=True)
    loop = ImageLoop(body.channel, pipeline, body.pulse)
    reader.serve(loop)
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need look at it again
    body.channel.send(ImagesReady(pipeline.info))
    loop.run()
    pipeline.close()
