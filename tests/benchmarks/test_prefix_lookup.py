"""The longest resident prefix over all slots, once for every request."""

from __future__ import annotations

import random

from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.engine.kv.history import History
from llamabox.engine.kv.prefix_index import PrefixIndex
from llamabox.engine.kv.slot import Slot

N_SLOTS = 16
N_TOKENS = 4000


def test_sixteen_slots_of_four_thousand_tokens(benchmark: BenchmarkFixture) -> None:
    chance = random.Random(7)
    prompt = [chance.randrange(50_000) for _ in range(N_TOKENS)]
    slots = []
    for slot_id in range(N_SLOTS):
        # Users behind one system prompt, each of whom goes his own way a little later.
        n_common = 3000 + 50 * slot_id
        slot = Slot(slot_id)
        slot.resident.extend(prompt[:n_common] + [-1] * (N_TOKENS - n_common))
        slot.n_exact = N_TOKENS
        slots.append(slot)
    history = History(prompt)
    match = benchmark.pedantic(PrefixIndex(slots).match, args=(history, N_TOKENS - 1), rounds=50, warmup_rounds=2)
    assert (match.slot, match.n_cells) == (slots[-1], 3000 + 50 * (N_SLOTS - 1))
