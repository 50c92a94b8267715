"""Questions that a text worker answers at once, beside the engine's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamabox.bindings.vocab import Vocab
from llamabox.engine.engine import Engine
from llamabox.workers.text.intake import Intake
from llamabox.workers.text.layouts.infill import InfillFormat


class QuickCalls:
    """tokenize, pieces, detokenize, infill, slots: any thread, at any time, also while a long prompt is computed."""

    def __init__(self, vocab: Vocab, intake: Intake, infill: InfillFormat, engine: Engine, n_ctx: int) -> None:
        self._vocab = vocab
        self._intake = intake
        self._infill = infill
        self._engine = engine
        self._n_ctx = n_ctx

    def find(self, method: str) -> Callable[..., Any] | None:
        """The method's function, None where it is not one of these."""
        methods: dict[str, Callable[..., Any]] = {
            "tokenize": self.tokenize,
            "pieces": self.pieces,
            "detokenize": self.detokenize,
            "slots": self.slots,
            "infill": self.infill,
        }
        return methods.get(method)

    def tokenize(self, content: list[str | int], add_special: bool, parse_special: bool) -> dict[str, Any]:
        """`{"tokens": [id, …]}`."""
        return {"tokens": self._intake.tokens(content, add_special=add_special, parse_special=parse_special)}

    def pieces(self, tokens: list[int]) -> dict[str, Any]:
        """`{"pieces": [text, …]}`; a piece that is no UTF-8 is a list of bytes."""
        return {"pieces": [self._piece(token) for token in tokens]}

    def detokenize(self, tokens: list[int]) -> dict[str, Any]:
        """`{"content": text}`; special tokens are not rendered."""
        known = [self._intake.token(token, "tokens") for token in tokens]
        content = b"".join(self._vocab.piece(token, special=False) for token in known)
        return {"content": content.decode("utf-8", "replace")}

    def infill(
        self, prefix: str, suffix: str, extra: list[tuple[str, str]], prompt: str, n_predict: int
    ) -> dict[str, Any]:
        """`{"tokens": [id, …], "text": what they stand for, special ones included}`; see InfillFormat."""
        tokens = self._infill.tokens(prefix, suffix, extra, prompt, n_predict)
        text = self._vocab.detokenize(tokens, remove_special=False, unparse_special=True)
        return {"tokens": tokens, "text": text.decode("utf-8", "replace")}

    def slots(self) -> list[dict[str, Any]]:
        """One object per slot; the last five keys tell of the sequence in it, if there is one.

        A glance at what the engine's thread is changing: each number is right, but they may be of neighbouring steps.
        """
        running = {sequence.slot.slot_id: sequence for sequence in list(self._engine.running) if sequence.slot}
        found = []
        for slot in self._engine.cache.slots:
            sequence = running.get(slot.slot_id)
            found.append(
                {
                    "id": slot.slot_id,
                    "n_ctx": self._n_ctx,
                    "n_resident": len(slot.resident),
                    "is_processing": sequence is not None,
                    "request_id": sequence.request_id if sequence else None,
                    "n_prompt": sequence.n_prompt if sequence else 0,
                    "n_decoded": sequence.n_generated if sequence else 0,
                    "truncated": sequence.truncated if sequence else False,
                }
            )
        return found

    def _piece(self, token: int) -> str | list[int]:
        piece = self._vocab.piece(token, special=True)
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError:
            return list(piece)
