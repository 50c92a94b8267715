"""What libllama puts off until the next decode: copies between KV streams, and moved positions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.model import Model
from llamabox.engine.kv.history import History
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.workers.text.runner import LlamaMemory

pytestmark = pytest.mark.model

ONE, OTHER = list(range(100, 140)), list(range(300, 340))


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    params = ContextParams(n_ctx=512, n_batch=64, n_ubatch=64, n_seq_max=2, n_threads=1, kv_unified=False)
    with Context(model, params) as made:
        yield made


def compute(context: Context, seq_id: int, tokens: list[int], position: int = 0) -> object:
    """The two likeliest tokens behind `tokens`."""
    batch = NativeBatch(context.native, len(tokens))
    rows = batch.extend(tokens, position, seq_id)
    batch.logits[rows[-1]] = 1
    context.decode(batch)
    return context.top_two(rows[-1])


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_copy_to_come_overwrites_what_is_restored_unless_it_is_carried_out(
    context: Context, carried_out: bool
) -> None:
    memory = LlamaMemory(context)
    compute(context, 0, ONE)
    state = memory.state_get(0)
    expected = compute(context, 0, [5], len(ONE))
    memory.seq_rm(0, -1, -1)
    for start in range(0, 240, len(OTHER)):
        compute(context, 0, OTHER, start)
    memory.seq_cp(0, 1)
    memory.seq_rm(1, -1, -1)
    if carried_out:
        memory.carry_out(1)
        assert (memory.seq_pos_max(0), memory.seq_pos_max(1)) == (239, -1)
    assert memory.state_set(1, state)
    # The other half is why `carry_out` is there: the day it fails, libllama does without.
    assert (compute(context, 1, [5], len(ONE)) == expected) == carried_out


@pytest.mark.parametrize("carried_out", [True, False])
def test_what_is_restored_into_the_source_of_a_copy_to_come_is_copied_unless_it_is_carried_out(
    context: Context, carried_out: bool
) -> None:
    memory = LlamaMemory(context)
    compute(context, 0, OTHER)
    state = memory.state_get(0)
    memory.seq_rm(0, -1, -1)
    compute(context, 0, ONE)
    expected = compute(context, 0, [5], len(ONE))
    memory.seq_rm(0, len(ONE), -1)
    memory.seq_cp(0, 1)
    memory.seq_rm(0, -1, -1)
    if carried_out:
        memory.carry_out(0)
    assert memory.state_set(0, state)
    assert (compute(context, 1, [5], len(ONE)) == expected) == carried_out


def test_carrying_out_leaves_what_the_sequence_holds(context: Context) -> None:
    memory = LlamaMemory(context)
    compute(context, 0, ONE)
    expected = compute(context, 0, [5], len(ONE))
    memory.seq_rm(0, len(ONE), -1)
    memory.carry_out(0)
    assert memory.seq_pos_max(0) == len(ONE) - 1
    assert compute(context, 0, [5], len(ONE)) == expected


def test_a_ledger_restores_into_the_source_of_a_copy_to_come_without_harm_to_either(context: Context) -> None:
    cache = KVCache(LlamaMemory(context), 2, 256)
    source, target = cache.slots
    for tokens in (OTHER, ONE):
        cache.clear(source)
        compute(context, 0, tokens)
        cache.computed(source, History(tokens), len(tokens))
        if tokens is OTHER:
            state = cache.state(source)
            then = compute(context, 0, [5], len(OTHER))
    expected = compute(context, 0, [5], len(ONE))
    cache._memory.seq_rm(0, len(ONE), -1)
    cache.copy(source, target, len(ONE))
    assert cache.restore(source, state)
    assert compute(context, 1, [5], len(ONE)) == expected
    assert compute(context, 0, [5], len(OTHER)) == then


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_state_taken_before_the_copy_is_carried_out_is_not_that_of_the_copy(
    context: Context, carried_out: bool
) -> None:
    memory = LlamaMemory(context)
    compute(context, 0, ONE)
    memory.seq_cp(0, 1)
    if carried_out:
        compute(context, 0, [5], len(ONE))
        memory.seq_rm(0, len(ONE), -1)
    state = memory.state_get(1)
    expected = compute(context, 0, [5], len(ONE))
    memory.seq_rm(1, -1, -1)
    assert memory.state_set(1, state)
    assert (compute(context, 1, [5], len(ONE)) == expected) == carried_out
