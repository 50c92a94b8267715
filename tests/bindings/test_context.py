"""Decoding, its errors, its memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.model import Model
from llamabox.errors import BadBatch, ContextError, NoRoom

TEXT = "The capital of France is Paris, and the capital of Italy is"


def tokens_of(context: Context, text: str = TEXT) -> list[int]:
    return context.model.vocab.tokenize(text, add_special=True, parse_special=True)


def prefill(context: Context, tokens: list[int], seq_id: int = 0, pos0: int = 0) -> int:
    """Decode the tokens; returns the row that has logits."""
    batch = NativeBatch(context.native, context.n_batch)
    rows = batch.extend(tokens, pos0, seq_id)
    batch.logits[rows[-1]] = 1
    context.decode(batch)
    return rows[-1]


def test_logits_have_a_value_for_every_token(context: Context) -> None:
    row = prefill(context, tokens_of(context))
    logits = context.logits(row)
    assert logits.shape == (context.n_vocab,)
    assert np.isfinite(logits).all()
    best = context.model.vocab.piece(int(logits.argmax()), special=True)
    assert best == b" Rome"


def test_the_two_leading_logits(context: Context) -> None:
    row = prefill(context, tokens_of(context))
    logits = context.logits(row)
    order = np.argsort(-logits, kind="stable")[:2]
    assert context.top_two(row) == tuple((int(token), float(logits[token])) for token in order)
    logits[order[0]] = np.nan
    assert context.top_two(row) is None


def test_a_batch_of_several_sequences_equals_each_alone(context: Context) -> None:
    tokens = tokens_of(context)
    row = prefill(context, tokens)
    alone = context.logits(row).copy()
    context.memory.clear()
    batch = NativeBatch(context.native, context.n_batch)
    rows = [batch.extend(tokens, 0, seq_id)[-1] for seq_id in range(3)]
    batch.logits[rows] = 1
    context.decode(batch)
    for row in rows:
        assert np.abs(context.logits(row) - alone).max() < 0.5
        assert context.logits(row).argmax() == alone.argmax()


def test_views_and_methods_fill_the_same_batch(context: Context) -> None:
    one, other = NativeBatch(context.native, 8), NativeBatch(context.native, 8)
    assert list(one.extend([5, 6, 7], 10, 2)) == [0, 1, 2]
    assert one.add(8, 13, 1, wants_logits=True) == 3
    other.token[:4], other.pos[:4], other.seq_id[:4], other.logits[:4] = (
        [5, 6, 7, 8],
        range(10, 14),
        [2, 2, 2, 1],
        [0, 0, 0, 1],
    )
    other.n_tokens = 4
    for a, b in ((one, other),):
        assert a.n_tokens == b.n_tokens
        for name in ("token", "pos", "seq_id", "logits"):
            assert (getattr(a, name)[:4] == getattr(b, name)[:4]).all()
    assert [one.c.seq_id[row][0] for row in range(4)] == [2, 2, 2, 1]


def test_no_room_leaves_the_memory_as_it_was(context: Context) -> None:
    token = tokens_of(context)[0]
    for start in range(0, context.n_ctx, 128):
        prefill(context, [token] * 128, pos0=start)
    assert context.memory.seq_pos_max(0) == context.n_ctx - 1
    with pytest.raises(NoRoom):
        prefill(context, [token], pos0=context.n_ctx)
    assert context.memory.seq_pos_max(0) == context.n_ctx - 1
    assert context.memory.seq_pos_max(1) == -1


def test_positions_with_a_gap_are_a_bad_batch(context: Context) -> None:
    prefill(context, tokens_of(context))
    with pytest.raises(BadBatch):
        prefill(context, tokens_of(context), pos0=100)


def test_tokens_outside_the_vocabulary_are_a_bad_batch(context: Context) -> None:
    for token in (-1, context.n_vocab):
        with pytest.raises(BadBatch):
            prefill(context, [token])


def test_another_thread_must_adopt_the_context(context: Context) -> None:
    outcomes: list[str] = []

    def use() -> None:
        try:
            context.synchronize()
        except AssertionError:
            outcomes.append("refused")
        context.adopt()
        context.synchronize()
        outcomes.append("adopted")

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert outcomes == ["refused", "adopted"]
    context.adopt()


def test_a_warm_context_is_empty(context: Context) -> None:
    context.warm_up()
    assert context.memory.seq_pos_max(0) == -1


def test_a_state_goes_to_another_sequence_and_continues_alike(context: Context) -> None:
    tokens = tokens_of(context)
    prefill(context, tokens[:-1])
    state = context.memory.state_get(0)
    assert context.memory.state_get(0, memoryview(bytearray(len(state) + 1))) == state
    row = prefill(context, tokens[-1:], pos0=len(tokens) - 1)
    expected = context.logits(row).copy()
    context.memory.clear()
    assert context.memory.state_set(2, state)
    assert context.memory.seq_pos_max(2) == len(tokens) - 2
    row = prefill(context, tokens[-1:], seq_id=2, pos0=len(tokens) - 1)
    assert np.abs(context.logits(row) - expected).max() < 0.02


def test_a_copied_prefix_continues_alike(context: Context) -> None:
    tokens = tokens_of(context)
    row = prefill(context, tokens)
    expected = context.logits(row).copy()
    memory = context.memory
    memory.seq_cp(0, 1)
    assert memory.seq_rm(1, len(tokens) - 1)
    assert (memory.seq_pos_min(1), memory.seq_pos_max(1)) == (0, len(tokens) - 2)
    row = prefill(context, tokens[-1:], seq_id=1, pos0=len(tokens) - 1)
    assert np.abs(context.logits(row) - expected).max() < 0.02
    assert memory.seq_rm(0, 0)
    assert memory.seq_pos_max(0) == -1
    assert memory.seq_pos_max(1) == len(tokens) - 1


def test_a_shift_moves_positions(context: Context) -> None:
    tokens = tokens_of(context)
    prefill(context, tokens)
    memory = context.memory
    assert memory.can_shift
    assert memory.seq_rm(0, 1, 4)
    memory.seq_add(0, 4, -1, -3)
    assert memory.seq_pos_max(0) == len(tokens) - 4


def test_closing_twice_is_harmless_and_use_after_it_is_our_bug(model: Model) -> None:
    context = Context(model, ContextParams(n_ctx=64, n_batch=32, n_ubatch=32, n_seq_max=1))
    context.close()
    context.close()
    with pytest.raises(AssertionError, match="closed"):
        context.synchronize()


@pytest.mark.parametrize("change", [{"n_seq_max": 100_000}, {"type_k": "q9_9"}, {"n_batch": 0, "n_ubatch": 0}])
def test_an_impossible_context_is_refused_in_one_line(model: Model, change: dict[str, object]) -> None:
    fields = {"n_ctx": 64, "n_batch": 32, "n_ubatch": 32, "n_seq_max": 1} | change
    with pytest.raises(ContextError) as refused:
        Context(model, ContextParams(**fields))  # type: ignore[arg-type]
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("flash", FlashAttention)
def test_every_number_of_threads_computes_the_same(model: Model, flash: FlashAttention) -> None:
    """To the bit: a chunk of a prompt, one row, and a few."""
    params = ContextParams(n_ctx=256, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=2, flash_attn=flash)
    with Context(model, params) as context:
        batch = NativeBatch(context.native, 64)
        for start, stop in ((0, 64), (64, 65), (65, 70), (70, 71)):
            found = []
            for n_threads in (2, 1, 3):
                context.set_n_threads(n_threads, n_threads)
                context.memory.seq_rm(0, start, -1)
                batch.clear()
                rows = batch.extend([100 + i for i in range(start, stop)], start, 0)
                batch.logits[rows.start : rows.stop] = True
                context.decode(batch)
                found.append(b"".join(context.logits(row).tobytes() for row in rows))
            assert found[0] == found[1] == found[2]


def test_a_context_tells_how_many_threads_it_has(model: Model) -> None:
    params = ContextParams(n_ctx=64, n_batch=32, n_ubatch=32, n_seq_max=1, n_threads=2, n_threads_batch=1)
    with Context(model, params) as context:
        assert (context.n_threads, context.n_threads_batch) == (2, 1)
        context.set_n_threads(1, 2)
        assert (context.n_threads, context.n_threads_batch) == (1, 2)
