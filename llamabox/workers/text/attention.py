"""What a context's attention means for how prompts are cut."""

from __future__ import annotations

from llamabox.workers.text_config import TextConfig

FLASH_TILE = 64
"""GGML_FA_TILE_Q of ggml's CPU backend: rows from which its flash attention works in tiles, on plain floats only."""


def attention_tile(config: TextConfig, *, has_gpu: bool) -> int:
    """What Runner.tile says. GPUs have no such step, and without flash attention there is none either.

    On a CPU `-fa off` is the faster choice from about 100 cells of context on. Measured with SmolLM2-135M on two cores,
    steps of 8 rows, time without flash attention over time with it: 1.12 at 40 cells, 0.96 at 100, 0.80 at 200, 0.68 at
    400, 0.58 at 800; a prompt in chunks of 32: 0.59 up to 512 cells, 0.34 from there to 1,024. It is not the default
    because ggml then computes a lone row of a prompt by another kernel than several: so a text may depend on what is
    computed beside it, and must not.
    """
    is_plain = {config.type_k, config.type_v} <= {"f16", "f32"}
    return FLASH_TILE if is_plain and config.flash_attn != "off" and not has_gpu else 1
