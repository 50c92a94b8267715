"""The image worker's own process over a pipeline without a model, which does what it is told.

`ImageConfig.model` is the script of its lives, comma separated, the last word standing for all later ones:

    fine         loads; draws; ends a draw that is cancelled with its image
    cancel       the same, but at once
    refuse       cannot be loaded
    gated        waits at the gate while it loads
    faulty       loads; its reader fails at the first job

Lives are counted in the file that FAKE_LIVES names. FAKE_GATE names a pipe: what waits at the gate takes a byte of it.
FAKE_CANCELS names a file that is there once a draw was cancelled.
A job's prompt is a command, see `FakePipeline.draw`.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llamabox.errors import InvalidRequest, ModelLoadError
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.events import Drawn, JobProgress, WorkerEvent
from llamabox.imaging.job import ImageJob
from llamabox.workers.image.loop import ImageLoop, ImagePipeline
from llamabox.workers.sigterm import block_sigterm, leave_group


class FakePipeline:
    def __init__(self, config: ImageConfig, *, can_cancel: bool) -> None:
        self.gate = os.open(os.environ["FAKE_GATE"], os.O_RDONLY)
        self.cancelled, self.canceller = os.pipe()
        self.is_last = False
        self.info = ImageModelInfo(
            path=config.model,
            family="fake",
            sampler="euler",
            schedule="discrete",
            steps=2,
            cfg_scale=1.0,
            guidance=3.5,
            strength=0.75,
            width=512,
            height=512,
            can_cancel=can_cancel,
        )

    @classmethod
    def load(cls, config: ImageConfig, on_progress: Callable[[float], None]) -> FakePipeline:
        with Path(os.environ["FAKE_LIVES"]).open("a+") as counter:
            counter.write("x")
            counter.flush()
            life = counter.tell()
        lives = config.model.split(",")
        script = lives[min(life, len(lives)) - 1]
        on_progress(0.5)
        if script == "refuse":
            raise ModelLoadError("fake.gguf is no model")
        if script == "faulty":
            ImageLoop.take = lambda loop, job: 1 // 0  # type: ignore[method-assign,assignment]
        pipeline = cls(config, can_cancel=script == "cancel")
        if script == "gated":
            pipeline.wait()
        return pipeline

    def wait(self) -> bool:
        """At the gate; False if the draw was cancelled meanwhile."""
        ready, _, _ = select.select([self.gate, self.cancelled], [], [])
        if self.cancelled in ready:
            os.read(self.cancelled, 1)
            return False
        os.read(self.gate, 1)
        return True

    def draw(self, job: ImageJob, emit: Callable[[WorkerEvent], None]) -> None:
        """draw · gated (each step and each image) · fail · bug · die SIGxxx · flood N"""
        command, *words = job.prompt.split()
        steps = int(words[0]) if command == "flood" else job.steps or self.info.steps
        self.is_last = False
        for index in range(job.n):
            if self.is_last:
                return
            for step in range(steps + 1):
                if step and command == "gated" and not self.wait():
                    return
                emit(JobProgress(job.request_id, index, step, steps))
            match command:
                case "fail":
                    raise InvalidRequest("no such sampler", field="sampler")
                case "bug":
                    raise ZeroDivisionError("a bug")
                case "die":
                    os.kill(os.getpid(), signal.Signals[words[0]])
                case "gated":
                    if not self.wait():
                        return
            seed = job.seed + index
            pixels = b"" if job.init is None else job.init.data
            png = f"{job.prompt} {seed} ".encode() + pixels
            emit(Drawn(job.request_id, index, png, seed, prepare_ms=1.0, sampling_ms=2.0, steps=steps))

    def cancel(self) -> bool:
        self.is_last = True
        Path(os.environ["FAKE_CANCELS"]).touch()
        if self.info.can_cancel:
            os.write(self.canceller, b".")
        return self.info.can_cancel

    def close(self) -> None:
        os.close(self.gate)


if TYPE_CHECKING:  # mypy holds the fake to the seam that it stands for
    _pipeline: type[ImagePipeline] = FakePipeline

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    leave_group()
    block_sigterm()
    from llamabox.workers.image.process import run

    code = run(int(sys.argv[1]), FakePipeline.load)
    os._exit(code)
