"""What waits for a slow consumer is bounded, in events and in what they weigh."""

from __future__ import annotations

import asyncio

import pytest

from llamabox.clients.inbox import Ending
from llamabox.clients.text.generation import MAX_LAG_PROBS, Generation
from llamabox.engine.events import Delta, Likely, Timings, TokenProbs
from llamabox.engine.request import GenerationParams
from llamabox.errors import ClientTooSlow
from llamabox.wire.text import Submit


def delta(n_probs: int) -> Delta:
    one = Likely(1, b"x", -1.0)
    return Delta("1", 0, "x", [1], Timings(), [TokenProbs(one, [one] * n_probs)] if n_probs else None)


def generation(left: list[Ending], max_lag: int = 1000) -> Generation:
    submit = Submit(request_id="1", prompt=["x"], params=GenerationParams())
    return Generation(submit, lambda _, ending: left.append(ending), max_lag)


@pytest.mark.parametrize(
    ("n_probs", "n_taken"), [(0, 1000), (20, 1000), (MAX_LAG_PROBS // 4, 5), (MAX_LAG_PROBS + 1, 1)]
)
def test_who_is_too_slow_is_dropped(n_probs: int, n_taken: int) -> None:
    async def scene() -> None:
        left: list[Ending] = []
        events = generation(left)
        for _ in range(n_taken):
            events.push(delta(n_probs))
        assert left == []
        events.push(delta(n_probs))
        assert left == [Ending.FAILED]
        with pytest.raises(ClientTooSlow, match="too slow"):
            await events.batch()

    asyncio.run(scene())


def test_what_was_taken_weighs_no_more() -> None:
    async def scene() -> None:
        left: list[Ending] = []
        events = generation(left)
        for _ in range(20):
            events.push(delta(MAX_LAG_PROBS // 2))
            await events.batch()
        assert left == []

    asyncio.run(scene())
