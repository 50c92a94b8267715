"""Drafts are verified only where a row comes out the same to the bit in any company: that is tried at load."""

from __future__ import annotations

import logging

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.model import Model
from llamabox.demo import ensure_demo_model
from llamabox.workers.text.steadiness.trial import is_steady, why_unsteady


@pytest.fixture(scope="module")
def model() -> Model:
    native = ffi.load()
    backend.start(native)
    return Model.load(native, str(ensure_demo_model(progress=False)))


def context(model: Model, *, flash: FlashAttention, n_seq_max: int = 4, n_ctx: int = 1024) -> Context:
    params = ContextParams(
        n_ctx=n_ctx, n_batch=128, n_ubatch=128, n_seq_max=n_seq_max, n_threads=1, flash_attn=flash, kv_unified=False
    )
    return Context(model, params)


@pytest.mark.parametrize("n_seq_max", [1, 4])
def test_our_kernels_are_steady(model: Model, n_seq_max: int) -> None:
    with context(model, flash=FlashAttention.ON, n_seq_max=n_seq_max) as made:
        assert (why_unsteady(made) is None) == bool(backend.kernels(model.native))
        assert [made.memory.seq_pos_max(seq_id) for seq_id in range(n_seq_max)] == [-1] * n_seq_max


@pytest.mark.parametrize(("drafts", "said"), [(True, "drafting is off"), (False, "take turns")])
def test_what_is_not_steady_is_found_and_said_once(
    model: Model, caplog: pytest.LogCaptureFixture, *, drafts: bool, said: str
) -> None:
    caplog.set_level(logging.INFO)
    with context(model, flash=FlashAttention.OFF) as made:
        assert not is_steady(made, tile=1, drafts=drafts)
    [record] = caplog.records
    assert said in record.message
    assert "a row alone differs" in record.message


def test_a_context_without_room_to_try_it_counts_as_not_steady(model: Model) -> None:
    with context(model, flash=FlashAttention.ON, n_seq_max=1, n_ctx=8) as made:
        made.n_ctx_seq = 8  # libllama rounds it up
        assert "too short" in str(why_unsteady(made))
