"""Texts about pictures and sounds beside other texts: each is what it is alone, and equal content is encoded once.

The worker is the real one, spoken to as the server process does. It lasts LLAMABOX_SOAK_SECONDS, else until each
question was asked twice.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.clients.text.client import TextClient
from llamabox.engine.request import Picture, PromptText, Sound
from tests.models.media import tones
from tests.workers.text.media.asking import ANSWER, ASKED, N_PREDICT, Asker, config, noise, picture

SECONDS = float(os.environ.get("LLAMABOX_SOAK_SECONDS", "0"))
N_TIMES = 2
N_CLIENTS = 8
ABORTS = 0.2

RED, GREEN = picture("red", "blue"), picture("green", "white")
SECRET = Sound(tones.RATE, tones.spoken("The", " secret", " word", " is", " apple"))

TEXTS: tuple[PromptText, ...] = (
    [ASKED + "Tell me of the sea, of salt and of bread." + ANSWER],
    [ASKED + "What is a bell?" + ANSWER],
    [ASKED + "A long story about seven hills and a mill. " * 12 + "What was it about?" + ANSWER],
)


def about(*pictures: Picture | Sound) -> list[PromptText]:
    """Questions about these, in several places, alone and together."""
    first = pictures[0]
    return [
        *([ASKED, one, "What is in the picture?" + ANSWER] for one in pictures),
        [ASKED + "What is its colour? ", first, ANSWER],
        [ASKED, first, "What is in the picture?" + ANSWER + "A square." + ASKED + "And its background?" + ANSWER],
        [ASKED, *itertools.chain.from_iterable((one, " and ") for one in pictures), "nothing else" + ANSWER],
        [ASKED, first, first, "Are they alike?" + ANSWER],
    ]


async def soak(asker: Asker, prompts: list[PromptText], alone: list[list[int]]) -> Counter[str]:
    """Many clients ask in any order, and some leave. Returns what came about."""
    met: Counter[str] = Counter()
    times = Counter[int]()
    until = time.monotonic() + SECONDS

    async def client(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < until or min(times[i] for i in range(len(prompts))) < N_TIMES:
            left = [i for i in range(len(prompts)) if times[i] < N_TIMES]
            which = chance.choice(left or range(len(prompts)))
            leave_after = chance.randrange(N_PREDICT) if chance.random() < ABORTS else None
            told = await asker.ask(prompts[which], leave_after=leave_after)
            if not told.is_whole:
                met["left"] += 1
                assert told.tokens == alone[which][: len(told.tokens)]
                continue
            times[which] += 1
            met["cached"] += told.n_cached > 0
            met["equal" if told.tokens == alone[which] else "differs"] += 1

    await asyncio.gather(*(client(seed) for seed in range(N_CLIENTS)))
    return met


CASES: dict[str, tuple[list[PromptText], dict[str, int | bool]]] = {
    "causal": (about(RED, GREEN, SECRET), {}),
    "causal, no rows kept, no cells beside the slots": (about(RED, GREEN, SECRET), {"mmproj_cache": 0, "cache_ram": 0}),
    "not causal": (about(noise(1, 64, 64), noise(2, 64, 64), noise(3, 96, 64)), {}),
    "M-RoPE": (about(RED, GREEN), {}),
}


@pytest.fixture
def files(request: pytest.FixtureRequest, model: Path) -> Callable[[str], tuple[Path, Path]]:
    """The model and the projector of a case."""

    def of(case: str) -> tuple[Path, Path]:
        if case == "M-RoPE":
            found: tuple[Path, Path] = request.getfixturevalue("mrope")
            return found
        mmproj: Path = request.getfixturevalue("mmproj_noncausal" if case == "not causal" else "mmproj")
        return model, mmproj

    return of


@pytest.mark.parametrize("case", CASES)
def test_texts_are_what_they_are_alone(case: str, files: Callable[[str], tuple[Path, Path]]) -> None:
    questions, options = CASES[case]
    prompts = [*TEXTS, *questions]

    async def run() -> None:
        async with TextClient(config(*files(case), **options)) as worker:
            await worker.wait_ready()
            asker = Asker(worker)
            alone = [(await asker.ask(prompt, cache_prompt=False)).tokens for prompt in prompts]
            met = await soak(asker, prompts, alone)
            print(case, dict(met), worker.activity)
            assert met["differs"] == 0
            assert met["left"] > 0
            assert met["cached"] > 0
            assert worker.activity.n_encoded > 0

    asyncio.run(run())
