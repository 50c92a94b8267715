"""Which attention a context computes with where `-fa` leaves it open, and what that means for batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from llamabox.bindings.backend import has_attention_kernel
from llamabox.bindings.context import FlashAttention
from llamabox.bindings.model import Model
from llamabox.engine.embedding.rooms import TILE
from llamabox.wire.text_config import TextConfig

logger = logging.getLogger(__name__)

SCORES_LIMIT = 512 << 20
"""Bytes of attention scores that are worth going without flash attention on a CPU."""


@dataclass(frozen=True, slots=True)
class Attention:
    """A context's way to compute attention, and the rules for batches that follow from it."""

    flash: FlashAttention
    tile: int  # what RunnerFacts.tile says
    mixes: bool  # what RunnerFacts.mixes says


def choose_attention(config: TextConfig, model: Model, *, has_gpu: bool) -> Attention:
    """Choose the best way for a model's context on this machine."""
    own = not has_gpu and _has_kernel(config, model)
    flash = flash_attention(config, model, has_gpu=has_gpu, has_kernel=own)
    return Attention(
        flash=flash,
        tile=attention_tile(config, flash, has_gpu=has_gpu, has_kernel=own),
        mixes=mixes(config, has_gpu=has_gpu),
    )


def _has_kernel(config: TextConfig, model: Model) -> bool:
    """Whether flash attention on the CPU is that of native/added."""
    k_size, v_size = model.head_sizes
    cells = ((config.type_k, k_size), (config.type_v, v_size))
    return all(has_attention_kernel(model.native, *kind) for kind in cells)


def flash_attention(config: TextConfig, model: Model, *, has_gpu: bool, has_kernel: bool) -> FlashAttention:
    """The setting of `-fa`. With `auto` libllama chooses where there is a GPU.

    On a CPU it is on where there is a kernel of ours, and else off within limits: ggml's flash attention takes a
    sequence's rows one by one unless there are TILE of them. Measured with SmolLM2-135M on two cores, steps of
    8 rows, ggml's time without flash attention over its time with it: 1.12 at 40 cells of context, 0.96 at 100, 0.80 at
    200, 0.68 at 400, 0.58 at 800; a prompt in chunks of 32: 0.59 up to 512 cells, 0.34 from there to 1,024. What it
    costs is memory: the scores of a whole ubatch against a whole slot.
    """
    asked = FlashAttention(config.flash_attn)
    if asked is FlashAttention.AUTO and has_kernel:
        return FlashAttention.ON
    if asked is not FlashAttention.AUTO or has_gpu or config.kv_unified:
        return asked
    if not _is_plain(config):  # libllama has quantised values only with flash attention
        return asked
    n_bytes = scores_size(config, model)
    if n_bytes > SCORES_LIMIT:
        logger.info(
            "flash attention is on: without it, which is faster, scores would take %d MiB; a smaller -ub helps",
            n_bytes >> 20,
        )
        return FlashAttention.ON
    return FlashAttention.OFF


def attention_tile(config: TextConfig, flash: FlashAttention, *, has_gpu: bool, has_kernel: bool) -> int:
    """Rows from which attention is computed in another way.

    GPUs and our kernel have no such step, nor has attention that is not flash attention.
    """
    has_step = flash is not FlashAttention.OFF and _is_plain(config) and not has_gpu and not has_kernel
    return TILE if has_step else 1


def mixes(config: TextConfig, *, has_gpu: bool) -> bool:
    """Whether lone rows and runs of sequences may share a batch.

    On a CPU without flash attention ggml multiplies a stream's lone row by dot products with queries rounded to f16,
    and runs by blocks (llamafile_sgemm) with queries in f32: the logits of one row were up to 0.13 apart. Keeping the
    kinds apart costs nothing where each sequence has a stream of its own: libllama cuts such batches there anyway. In a
    unified pool all rows are one run, whosesoever they are; and on GPUs kernels differ by the number of rows in too
    many ways to keep up with.
    """
    return has_gpu or config.kv_unified


def scores_size(config: TextConfig, model: Model) -> int:
    """Bytes of the attention scores of one layer: float32, n_ctx of a sequence * n_ubatch * n_head."""
    n_ctx = config.n_ctx or model.n_ctx_train
    if not config.kv_unified:
        n_ctx //= config.n_parallel
    return 4 * n_ctx * min(config.n_ubatch, config.n_batch) * model.n_head


def _is_plain(config: TextConfig) -> bool:
    return {config.type_k, config.type_v} <= {"f16", "f32"}
