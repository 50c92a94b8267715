"""Where prompts are cut into tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamabox.workers.text.attention import FLASH_TILE, attention_tile
from llamabox.workers.text_config import TextConfig

PLAIN = TextConfig(model="m")


@pytest.mark.parametrize("word", ["on", "auto"])
def test_flash_attention_on_a_cpu_has_tiles(word: str) -> None:
    assert attention_tile(replace(PLAIN, flash_attn=word), has_gpu=False) == FLASH_TILE


@pytest.mark.parametrize("word", ["on", "auto", "off"])
def test_a_gpu_has_none(word: str) -> None:
    assert attention_tile(replace(PLAIN, flash_attn=word), has_gpu=True) == 1


def test_without_flash_attention_there_are_none() -> None:
    assert attention_tile(replace(PLAIN, flash_attn="off"), has_gpu=False) == 1


@pytest.mark.parametrize("quantised", [{"type_k": "q8_0"}, {"type_v": "q4_0"}])
def test_nor_are_there_for_quantised_cells(quantised: dict[str, str]) -> None:
    assert attention_tile(replace(PLAIN, **quantised), has_gpu=False) == 1  # type: ignore[arg-type]
