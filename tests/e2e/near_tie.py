"""Greedy texts may part where two logits are as good as equal: the shape of a batch changes their last bits.

`assert_same_or_near_tie` accepts a first difference only where it shows that the two leading logits lie close together.
"""

from __future__ import annotations

from pathlib import Path

from llamabox.bindings import backend
from llamabox.bindings._ffi import load
from llamabox.bindings.batch import Batch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.model import Model

TOLERANCE = 0.02


class Oracle:
    """Evaluates token lists one at a time and tells the gap between the two leading logits after them."""

    def __init__(self, model: Path, n_ctx: int) -> None:
        native = load()
        backend.start(native)
        self._model = Model.load(native, model)
        self._context = Context(self._model, ContextParams(n_ctx=n_ctx, n_batch=n_ctx, n_ubatch=512, n_seq_max=1))
        self._batch = Batch(native, n_ctx)

    def gap(self, tokens: list[int]) -> float:
        """The distance of the two leading logits behind `tokens`."""
        self._context.memory.clear()
        self._batch.clear()
        rows = self._batch.extend(tokens, 0, 0)
        self._batch.logits[rows[-1]] = 1
        self._context.decode(self._batch)
        leading = self._context.top_two(rows[-1])
        assert leading is not None
        (_, first), (_, second) = leading
        return first - second

    def close(self) -> None:
        self._context.close()
        self._model.close()


def assert_same_or_near_tie(oracle: Oracle, prompt: list[int], got: list[int], alone: list[int]) -> bool:
    """True when the tokens are equal; otherwise the first difference must be a near tie."""
    if got == alone:
        return True
    at = next((i for i, (a, b) in enumerate(zip(got, alone, strict=False)) if a != b), None)
    assert at is not None, f"one text ends early: {len(got)} and {len(alone)} tokens"
    gap = oracle.gap(prompt + alone[:at])
    assert gap <= TOLERANCE, f"texts part at token {at}, where the leading logits are {gap:.4f} apart"
    return False
