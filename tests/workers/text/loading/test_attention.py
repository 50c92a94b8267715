"""Which attention is taken where `-fa` leaves it open."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llamabox.bindings.context import FlashAttention
from llamabox.engine.embedding.rooms import TILE
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading import attention
from llamabox.workers.text.loading.attention import (
    SCORES_LIMIT,
    attention_tile,
    choose_attention,
    flash_attention,
    mixes,
    scores_size,
)

MODEL: Any = SimpleNamespace(n_head=9, n_ctx_train=8192)
PLAIN = TextConfig(model="m", n_ctx=32768, n_parallel=16)
UNIFIED = replace(PLAIN, kv_unified=True)


def test_on_a_cpu_it_is_off_and_prompts_are_cut_as_asked_for() -> None:
    flash = flash_attention(PLAIN, MODEL, has_gpu=False, has_kernel=False)
    assert flash is FlashAttention.OFF
    assert attention_tile(PLAIN, flash, has_gpu=False, has_kernel=False) == 1


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("word", ["on", "off"])
def test_the_users_word_holds(word: str, has_gpu: bool) -> None:
    config = replace(PLAIN, flash_attn=word)
    flash = flash_attention(config, MODEL, has_gpu=has_gpu, has_kernel=False)
    assert flash is FlashAttention(word)
    assert attention_tile(config, flash, has_gpu=has_gpu, has_kernel=False) == (
        TILE if (word, has_gpu) == ("on", False) else 1
    )


@pytest.mark.parametrize("word", ["auto", "on", "off"])
def test_with_a_kernel_of_ours_it_is_on_but_for_the_users_word(word: str) -> None:
    config = replace(PLAIN, flash_attn=word, n_parallel=1)
    flash = flash_attention(config, MODEL, has_gpu=False, has_kernel=True)
    assert flash is (FlashAttention.OFF if word == "off" else FlashAttention.ON)
    assert attention_tile(config, flash, has_gpu=False, has_kernel=True) == 1


@pytest.mark.parametrize(
    ("taken", "has_gpu", "expected"),
    [
        ([("f16", 64), ("q8_0", 80)], False, FlashAttention.ON),
        ([("f16", 64)], False, FlashAttention.AUTO),
        ([("q8_0", 80)], False, FlashAttention.AUTO),
        ([], False, FlashAttention.AUTO),
        ([("f16", 64), ("q8_0", 80)], True, FlashAttention.AUTO),
    ],
)
def test_the_kernel_must_take_keys_and_values(
    monkeypatch: pytest.MonkeyPatch, taken: list[tuple[str, int]], has_gpu: bool, expected: FlashAttention
) -> None:
    monkeypatch.setattr(attention, "has_attention_kernel", lambda native, *kind: kind in taken)
    model: Any = SimpleNamespace(native=None, head_sizes=(64, 80))
    chosen = choose_attention(replace(PLAIN, type_k="f16", type_v="q8_0"), model, has_gpu=has_gpu)
    assert chosen.flash is expected
    assert chosen.tile == 1
    assert chosen.mixes is has_gpu


def test_with_a_gpu_libllama_chooses() -> None:
    assert flash_attention(PLAIN, MODEL, has_gpu=True, has_kernel=False) is FlashAttention.AUTO


@pytest.mark.parametrize("quantised", [{"type_k": "q8_0"}, {"type_v": "q4_0"}])
def test_with_quantised_cells_libllama_chooses(quantised: dict[str, str]) -> None:
    config = replace(PLAIN, **quantised)  # type: ignore[arg-type]
    flash = flash_attention(config, MODEL, has_gpu=False, has_kernel=False)
    assert flash is FlashAttention.AUTO
    assert attention_tile(config, flash, has_gpu=False, has_kernel=False) == 1, "there are no tiles for them"


def test_scores_that_would_take_too_much_memory_keep_it_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    long = replace(PLAIN, n_parallel=1)
    assert scores_size(long, MODEL) == 4 * 32768 * 512 * 9 > SCORES_LIMIT
    assert flash_attention(long, MODEL, has_gpu=False, has_kernel=False) is FlashAttention.ON
    assert "scores would take 576 MiB" in caplog.text
    assert flash_attention(replace(long, n_ubatch=128), MODEL, has_gpu=False, has_kernel=False) is FlashAttention.OFF


def test_in_a_unified_pool_libllama_chooses() -> None:
    assert flash_attention(UNIFIED, MODEL, has_gpu=False, has_kernel=False) is FlashAttention.AUTO


def test_lone_rows_are_kept_apart_where_they_have_a_stream_of_their_own() -> None:
    assert not mixes(PLAIN, has_gpu=False)
    assert mixes(PLAIN, has_gpu=True)
    assert mixes(replace(PLAIN, kv_unified=True), has_gpu=False)


def test_a_slots_context_counts() -> None:
    assert scores_size(PLAIN, MODEL) == 4 * 2048 * 512 * 9
    assert scores_size(replace(PLAIN, n_ctx=0, n_parallel=1), MODEL) == 4 * 8192 * 512 * 9
