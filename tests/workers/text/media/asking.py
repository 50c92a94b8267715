"""Asks a real text worker about pictures and sounds, as the server process does."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llamabox.clients.text.client import TextClient
from llamabox.engine.events import Delta, Event, Finished, Started
from llamabox.engine.request import GenerationParams, Picture, PromptText, SamplingParams
from llamabox.wire.text import Submit
from llamabox.wire.text_config import TextConfig
from tests.models.media.colours import square

N_SLOTS = 4
N_CTX = 512
N_PREDICT = 12

ASKED = "<|im_start|>user\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"


def picture(figure: str, background: str, side: int = 96) -> Picture:
    return Picture(side, side, square(figure, background, side))


def noise(seed: int, width: int, height: int) -> Picture:
    return Picture(width, height, np.random.default_rng(seed).integers(0, 256, 3 * width * height, np.uint8).tobytes())


def config(model: Path, mmproj: Path, **options: int | bool) -> TextConfig:
    usual = {"n_ctx": N_SLOTS * N_CTX, "n_parallel": N_SLOTS, "n_batch": 256, "n_ubatch": 64, "n_threads": 1}
    return TextConfig(model=str(model), mmproj=str(mmproj), **usual | options)  # type: ignore[arg-type]


@dataclass
class Told:
    """What came of one request."""

    tokens: list[int] = field(default_factory=list)
    n_prompt: int = 0
    n_cached: int = 0
    is_whole: bool = False

    def note(self, event: Event) -> None:
        match event:
            case Started():
                self.n_prompt, self.n_cached = event.n_prompt, event.n_cached
            case Delta():
                self.tokens += event.tokens
            case Finished():
                self.is_whole = True


class Asker:
    """Asks a worker."""

    def __init__(self, client: TextClient) -> None:
        self.client = client
        self._numbers = itertools.count()

    async def ask(self, prompt: PromptText, *, leave_after: int | None = None, **params: int | bool) -> Told:
        """All that it says, or what it says until it is left after so many tokens."""
        sampling = SamplingParams(temperature=0.0, seed=1, ignore_eos=True)
        generation = GenerationParams(n_predict=N_PREDICT, sampling=sampling, **params)  # type: ignore[arg-type]
        told = Told()
        asked = Submit(request_id=f"r{next(self._numbers)}", prompt=list(prompt), params=generation)
        async with self.client.generate(asked) as events_of:
            while leave_after != 0 and (events := await events_of.batch()):
                for event in events:
                    told.note(event)
                if leave_after is not None and len(told.tokens) >= leave_after:
                    return told
        return told
