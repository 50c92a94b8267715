"""What the tests hold answers against: a model that evaluates one text at a time, as the server does.

Greedy texts may part where two logits are as good as equal: the shape of a batch changes their last bits.

`assert_same_or_near_tie` accepts a first difference only where it shows that the two leading logits lie close together.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings import backend
from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import load
from llamabox.bindings.model import Model
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.attention import choose_attention

TOLERANCE = 0.02


class Oracle:
    """Evaluates token lists one at a time: a run at once, then the rows of logits one by one."""

    def __init__(self, model: Path, n_ctx: int) -> None:
        native = load()
        backend.start(native)
        self._model = Model.load(native, model)
        config = TextConfig(model=str(model), n_ctx=n_ctx)
        flash = choose_attention(config, self._model, has_gpu=False).flash
        # libllama's default are four threads, which on two cores spend their time in waiting for each other.
        params = ContextParams(n_ctx=n_ctx, n_batch=n_ctx, n_ubatch=512, n_seq_max=1, n_threads=1, flash_attn=flash)
        self._context = Context(self._model, params)
        self._batch = NativeBatch(native, n_ctx)

    def tokenize(self, text: str) -> list[int]:
        """A prompt's tokens."""
        return self._model.vocab.tokenize(text, add_special=True, parse_special=True)

    def gap(self, prompt: list[int], generated: list[int]) -> float:
        """The distance of the two leading logits behind both."""
        row = self.logits(prompt[:-1], prompt[-1:] + generated)[-1]
        first, second = np.sort(row)[:-3:-1]
        return float(first - second)

    def logits(self, run: list[int], lone: list[int]) -> list[NDArray[np.float32]]:
        """The logits behind each of the `lone` tokens, which follow upon a `run`."""
        self._context.memory.clear()
        self._evaluate(run, 0, has_output=False)
        return [self._evaluate([token], len(run) + i, has_output=True) for i, token in enumerate(lone)]

    def _evaluate(self, tokens: list[int], position: int, *, has_output: bool) -> NDArray[np.float32]:
        self._batch.clear()
        if not tokens:
            return np.empty(0, np.float32)
        row = self._batch.extend(tokens, position, 0)[-1]
        self._batch.logits[row] = has_output
        self._context.decode(self._batch)
        return self._context.logits(row).copy() if has_output else np.empty(0, np.float32)

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._context.close()
        self._model.close()


def assert_same_or_near_tie(oracle: Oracle, prompt: list[int], got: list[int], alone: list[int]) -> bool:
    """True when the tokens are equal; otherwise the first difference must be a near tie."""
    if got == alone:
        return True
    at = next((i for i, (a, b) in enumerate(zip(got, alone, strict=False)) if a != b), None)
    assert at is not None, f"one text ends early: {len(got)} and {len(alone)} tokens"
    gap = oracle.gap(prompt, alone[:at])
    assert gap <= TOLERANCE, f"texts part at token {at}, where the leading logits are {gap:.4f} apart"
    return False
