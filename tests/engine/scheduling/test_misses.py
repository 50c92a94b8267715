"""The line that says why a prompt was not found in the cache any further."""

from __future__ import annotations

import pytest

from llamabox.engine.kv.slot import Slot
from llamabox.engine.request import GenerationParams, LoraSet, Request, Words
from llamabox.engine.scheduling.misses import explain
from llamabox.engine.sequence import Sequence

PROMPT = (1, 2, 3, 4, 5)


def asked(tokens: tuple[int, ...] = PROMPT, **params: object) -> Sequence:
    request = Request(request_id="r", prompt=(Words(tokens),), params=GenerationParams(**params))  # type: ignore[arg-type]
    return Sequence(request, 0, seed=0, arrived=0.0)


def holding(slot_id: int, *tokens: int, n_exact: int | None = None, lora: LoraSet = ()) -> Slot:
    slot = Slot(slot_id)
    slot.resident.extend(tokens)
    slot.resident.lora = lora
    slot.n_exact = len(tokens) if n_exact is None else n_exact
    return slot


@pytest.mark.parametrize(
    ("slots", "line"),
    [
        ([holding(0)], "nothing is cached: all slots are empty"),
        ([holding(0, 1, lora=((0, 1.0),))], "nothing can be reused: all slots were computed with other LoRA adapters"),
        (
            [holding(0, 1, 9), holding(1, 1, 2, 3, 8, 9)],
            "slot 1 holds 3 of 5 prompt tokens: token 3 is 4 'd', there it is 8 'h'",
        ),
        ([holding(0, 7)], "slot 0 holds 0 of 5 prompt tokens: token 0 is 1 'a', there it is 7 'g'"),
        ([holding(2, 1, 2)], "slot 2 holds 2 of 5 prompt tokens, and none that differs"),
        ([holding(0, *PROMPT, 6)], "slot 0 holds 5 of 5 prompt tokens, and none that differs"),
        (
            [holding(0, *PROMPT, n_exact=2)],
            "slot 0 holds 5 of 5 prompt tokens, but those behind the first 2 come from a context shift",
        ),
        ([holding(0, 1, -5)], "slot 0 holds 1 of 5 prompt tokens: token 1 is 2 'b', there it is media"),
    ],
)
def test_what_ends_the_common_prefix(slots: list[Slot], line: str) -> None:
    assert explain(asked(), slots, lambda token: bytes([96 + token])) == line


def test_a_request_that_wants_nothing_cached() -> None:
    line = explain(asked(cache_prompt=False), [holding(0, *PROMPT)], lambda _: b"")
    assert line == "nothing is reused: cache_prompt is false"
