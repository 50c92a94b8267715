"""Pictures in models whose memory cannot be cut: what came behind a picture may change, and the picture stays.

Other servers encode and compute it again at each turn of such a model. Its checkpoints count cells, of which a picture
has more than positions or fewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.clients.text.client import TextClient
from llamabox.demo import ensure_demo_model
from llamabox.wire.questions import CountTokens
from tests.models.media.projectors import write_noncausal_mmproj
from tests.models.memories.tiny import N_EMBD, write_hybrid, write_sliding
from tests.workers.text.media.asking import ANSWER, ASKED, Asker, config, noise

TALE = "The ferryman counts his coins while the rain falls on the river and nobody comes. "
SYSTEM = "<|im_start|>system\n" + TALE * 3 + "<|im_end|>\n" + ASKED
PICTURE, OTHER = noise(1, 64, 64), noise(2, 64, 64)
FIRST, SECOND = "Who is in the picture?" + ANSWER, "What falls on the river?" + ANSWER
LATER = "Nobody.<|im_end|>\n" + ASKED + "And what else?" + ANSWER

MARK = 8
"""Most tokens by which libmtmd marks a picture's end."""

Write = Callable[[Path, Path], Path]


@pytest.fixture(scope="module", params=[write_hybrid, write_sliding], ids=["hybrid", "sliding window"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("memories")
    write: Write = request.param
    model = write(folder / "model.gguf", ensure_demo_model(progress=False))
    projector = write_noncausal_mmproj(folder / "mmproj.gguf", N_EMBD)
    yield model, projector
    model.unlink()
    projector.unlink()


def test_a_picture_is_computed_once_whatever_follows_it(files: tuple[Path, Path]) -> None:
    async def run() -> None:
        async with TextClient(config(*files, n_ctx=4096, n_parallel=2, mmproj_cache=0)) as worker:
            await worker.wait_ready()
            asker = Asker(worker)
            prompts = [
                [SYSTEM, PICTURE, FIRST],
                [SYSTEM, PICTURE, SECOND],
                [SYSTEM, PICTURE, FIRST, LATER],
                [SYSTEM, PICTURE, "And here: ", OTHER, SECOND],
                [SYSTEM, PICTURE, FIRST],
            ]
            alone = [await asker.ask(prompt, cache_prompt=False) for prompt in prompts]
            assert len({tuple(one.tokens) for one in alone}) > 2, "what is asked makes a difference"
            n_before = (await worker.ask(CountTokens([SYSTEM, PICTURE]))).n_tokens - MARK
            assert (await asker.ask(prompts[0], id_slot=0)).tokens == alone[0].tokens
            n_encoded = worker.activity.n_encoded
            for number, slot in ((1, 0), (2, 0), (1, 1), (3, 0), (4, 1)):
                told = await asker.ask(prompts[number], id_slot=slot)
                assert told.tokens == alone[number].tokens, (number, slot)
                assert told.n_cached >= n_before, (number, slot)
                n_encoded += OTHER in prompts[number]
                assert worker.activity.n_encoded == n_encoded, (number, slot)

    asyncio.run(run())
