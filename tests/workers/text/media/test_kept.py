"""A picture that came before is neither encoded nor computed again: on another slot, or from a file after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llamabox.clients.text.client import TextClient
from llamabox.demo import ensure_demo_model
from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.wire.questions import CountTokens, RestoreSlot, SaveSlot
from tests.workers.text.media.asking import ANSWER, ASKED, N_CTX, Asker, config, picture

RED, GREEN = picture("red", "blue"), picture("green", "blue")
BEFORE = [ASKED, RED]
QUESTIONS = "What is in the picture?" + ANSWER, "And what is behind it?" + ANSWER


@pytest.fixture(scope="module")
def demo() -> Path:
    return ensure_demo_model(progress=False)


def test_a_second_question_computes_only_its_own_words(
    demo: Path, mmproj: Path, mmproj_noncausal: Path, tmp_path: Path
) -> None:
    saved = str(tmp_path / "picture")

    async def run() -> None:
        async with TextClient(config(demo, mmproj, mmproj_cache=0)) as worker:
            await worker.wait_ready()
            asker = Asker(worker)
            first, second = [[*BEFORE, question] for question in QUESTIONS]
            alone = [await asker.ask(prompt, cache_prompt=False) for prompt in (first, second)]
            again = [await asker.ask(prompt, id_slot=2) for prompt in (first, second)]
            n_before = (await worker.ask(CountTokens(list(BEFORE)))).n_tokens
            assert [one.tokens for one in again] == [one.tokens for one in alone]
            assert again[1].n_cached >= n_before
            n_encoded = worker.activity.n_encoded
            other = await asker.ask(second, id_slot=3)
            assert other.tokens == alone[1].tokens
            assert other.n_cached >= n_before
            assert worker.activity.n_encoded == n_encoded
            stranger = await asker.ask([ASKED, GREEN, QUESTIONS[0]], id_slot=1)
            assert stranger.n_cached < n_before
            assert stranger.tokens != alone[0].tokens
            await worker.ask(SaveSlot(2, saved))
        async with TextClient(config(demo, mmproj)) as worker:
            await worker.wait_ready()
            asker = Asker(worker)
            await worker.ask(RestoreSlot(1, saved))
            for question, expected in zip((first, second), alone, strict=True):
                told = await asker.ask(question)
                assert told.tokens == expected.tokens
                assert told.n_cached >= n_before
            assert worker.activity.n_encoded == 0
            assert (await asker.ask([ASKED, GREEN, QUESTIONS[0]])).tokens == stranger.tokens
            assert worker.activity.n_encoded == 1
            await asker.ask([ASKED, GREEN, QUESTIONS[0]], cache_prompt=False)
            assert (worker.activity.n_encoded, worker.activity.n_encode_hits) == (1, 1)
            with pytest.raises(ContextExceeded) as refusal:
                await asker.ask([ASKED, *[RED] * 40, ANSWER])
            assert refusal.value.details["n_prompt_tokens"] >= refusal.value.details["n_ctx"] == N_CTX
        async with TextClient(config(demo, mmproj_noncausal)) as worker:
            await worker.wait_ready()
            with pytest.raises(InvalidRequest, match="another projector"):
                await worker.ask(RestoreSlot(0, saved))

    asyncio.run(run())
