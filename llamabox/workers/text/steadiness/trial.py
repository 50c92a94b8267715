"""Whether a row comes out the same to the bit whatever else is in its batch: tried out with the loaded model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context
from llamabox.errors import LlamaboxError
from llamabox.workers.text.steadiness.verdicts import Verdict

logger = logging.getLogger(__name__)

N_PREFIX = 24
"""Cells in front of the rows that are compared."""

N_OTHERS_PREFIX = 8
"""Cells in front of those of other sequences."""

LENGTHS = (2, 3, 4, 7)
"""Rows of runs. What computes a few rows apart does so by fours or eights, and then what is left."""

LONGEST = 9
"""Rows of the run that all others are compared with."""

N_ALONE = 2
"""Rows that are computed one by one."""

N_BESIDE = 4
"""Rows of a run beside other sequences."""


def is_steady(context: Context, *, tile: int, drafts: bool, verdict: Verdict | None = None) -> bool:
    """Whether a row of `context` comes out alike everywhere. Where not, the log says what comes of it, and why.

    `tile`: see RunnerFacts. `drafts`: there are drafters. `verdict`: where an earlier trial's may be, and this one's is
    kept. The memory must be empty, and is so afterwards.
    """
    if tile > 1:  # from 512 cells on ggml's attention adds up a lone row by pieces, which is not tried here
        reason: str | None = "attention computes a row alone in another way than beside others"
    else:
        reason = _known_or_tried(context, verdict)
    if reason is not None:
        what = "drafting is off, as it could change a text" if drafts else "streams take turns with what grammars force"
        logger.info("%s: %s", what, reason)
    return reason is None


def _known_or_tried(context: Context, verdict: Verdict | None) -> str | None:
    known = None if verdict is None else verdict.recall()
    if known is not None:
        return known or None
    start = time.perf_counter()
    try:
        reason = why_unsteady(context)
    except LlamaboxError as error:  # another start may do better, so it is not kept
        return error.message
    logger.debug("trying whether rows are steady took %.2f s", time.perf_counter() - start)
    if verdict is not None:
        verdict.keep(reason or "")
    return reason


def why_unsteady(context: Context) -> str | None:
    """Say where a row of `context` comes out otherwise than elsewhere; None: nowhere that was tried.

    Takes a dozen decodes of few rows. The memory must be empty, and is so afterwards. Raises LlamaboxError where they
    cannot be computed.
    """
    n_most = min(context.n_batch, context.n_ctx_seq)
    n_prefix = min(N_PREFIX, n_most - LONGEST)
    if n_prefix < 1:
        return f"a batch or a context of {n_most} tokens is too short to try whether it does"
    try:
        return _Trial(context, n_prefix).run()
    finally:
        context.memory.clear(data=True)


class _Trial:
    """Computes the same rows of the first sequence in ever other company."""

    def __init__(self, context: Context, n_prefix: int) -> None:
        self._context = context
        self._n_sequences = min(3, context.n_seq_max)
        self._n_cells = [n_prefix] + [min(n_prefix, N_OTHERS_PREFIX)] * (self._n_sequences - 1)  # of the prefixes
        shape = (self._n_sequences, n_prefix + LONGEST)
        self._tokens: NDArray[np.int32] = np.random.default_rng(0).integers(0, context.n_vocab, shape, dtype=np.int32)
        self._batch = NativeBatch(context.native, self._n_sequences * (n_prefix + LONGEST))
        self._prefixes: list[memoryview] = []  # the states behind them, by sequence

    def run(self) -> str | None:
        for seq_id in range(self._n_sequences):
            self._decode([(seq_id, 0, self._n_cells[seq_id])], wants_logits=False)
            self._prefixes.append(self._context.memory.state_get(seq_id))
        expected = self._rows(LONGEST)
        if not _are_equal(self._alone(), expected):
            return "a row alone differs from one in a run"
        for length in LENGTHS:
            if not _are_equal(self._rows(length), expected):
                return f"a row in a run of {length} differs from one in a run of {LONGEST}"
        n_others = self._n_sequences - 1
        for length, beside in ((1, N_BESIDE), (N_BESIDE, 1), (N_BESIDE, N_BESIDE)):
            if n_others and not _are_equal(self._rows(length, *[beside] * n_others), expected):
                return f"a row in a run of {length} differs beside other sequences with {beside} each"
        return None

    def _rows(self, *lengths: int) -> list[NDArray[np.float32]]:
        """The logits of the first sequence's rows, where so many rows of each sequence are computed together."""
        self._restore(len(lengths))
        return self._decode([(seq_id, self._n_cells[seq_id], length) for seq_id, length in enumerate(lengths)])[
            : lengths[0]
        ]

    def _alone(self) -> list[NDArray[np.float32]]:
        """The logits of the first sequence's first rows, computed one by one."""
        self._restore(1)
        return [self._decode([(0, self._n_cells[0] + at, 1)])[0] for at in range(N_ALONE)]

    def _restore(self, n_sequences: int) -> None:
        """Let the first sequences hold their prefixes alone."""
        for seq_id, prefix in enumerate(self._prefixes[:n_sequences]):
            has_room = self._context.memory.state_set(seq_id, prefix)
            assert has_room, "what was there fits again"

    def _decode(self, parts: Sequence[tuple[int, int, int]], *, wants_logits: bool = True) -> list[NDArray[np.float32]]:
        """Compute (sequence, first cell, number of cells). Returns the logits of all rows if they are wanted."""
        self._batch.clear()
        for seq_id, start, n_cells in parts:
            rows = self._batch.extend(self._tokens[seq_id, start : start + n_cells], start, seq_id)
            self._batch.logits[rows.start : rows.stop] = wants_logits
        self._context.decode(self._batch)
        return [] if not wants_logits else [self._context.logits(row).copy() for row in range(self._batch.n_tokens)]


def _are_equal(rows: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> bool:
    """Whether as many rows as both have are equal to the bit."""
    return all(one.tobytes() == other.tobytes() for one, other in zip(rows, expected, strict=False))
