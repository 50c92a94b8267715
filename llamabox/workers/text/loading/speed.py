"""This model's measured speed on this machine: the cap that `--tokens-per-second -1` stands for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context

MAX_SECONDS = 5.0
"""A slow model is measured on fewer tokens, so that it still starts soon."""


def measure(context: Context, *, clock: Callable[[], float] = time.perf_counter) -> int:
    """Tokens per second of one text alone, rounded up. Leaves the memory empty.

    From BOS on, one token a decode, each the likeliest after the one before; at most `n_ubatch` tokens, and no more
    than fit into a sequence's context.
    """
    vocab = context.model.vocab
    token = vocab.bos if vocab.bos is not None else vocab.eos or 0
    n_most = min(context.n_ctx_seq, context.n_ubatch)
    batch = NativeBatch(context.native, 1)
    start = now = clock()
    n_tokens = 0
    while n_tokens < n_most and now - start < MAX_SECONDS:
        batch.clear()
        row = batch.add(token, n_tokens, 0, wants_logits=True)
        context.decode(batch)
        likeliest = context.top_two(row)
        token = token if likeliest is None else likeliest[0][0]
        n_tokens += 1
        now = clock()
    context.memory.clear()
    return math.ceil(n_tokens / max(now - start, 1e-6))
