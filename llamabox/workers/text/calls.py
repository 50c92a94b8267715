"""Questions that a text worker answers at once, beside the engine's thread."""

from __future__ import annotations

from typing import Any

from llamabox.bindings.vocab import Vocab
from llamabox.engine.kv.slots import Slots
from llamabox.engine.request import n_cells
from llamabox.wire.questions import (
    Answer,
    CountTokens,
    Detokenise,
    FindControlTokens,
    Layout,
    LayOutInfill,
    LookAtSlots,
    Pieces,
    Question,
    SlotViews,
    Spell,
    Text,
    TokenCount,
    TokenIds,
    Tokenise,
    Tokens,
)
from llamabox.workers.text.intake import Intake
from llamabox.workers.text.layouts.infill import InfillFormat


class QuickCalls:
    """Any thread may ask, at any time, also while a long prompt is computed."""

    def __init__(self, vocab: Vocab, intake: Intake, infill: InfillFormat, slots: Slots) -> None:
        self._vocab = vocab
        self._intake = intake
        self._infill = infill
        self._slots = slots

    def answer(self, question: Question[Any]) -> Answer:
        """The answer, of the question's own type. Raises what the question raises."""
        match question:
            case Tokenise(content, add_special, parse_special):
                return TokenIds(self._intake.token_ids(content, add_special=add_special, parse_special=parse_special))
            case FindControlTokens(texts):
                return Tokens([self._control_token(text) for text in texts])
            case CountTokens(prompt):
                return TokenCount(n_cells(self._intake.prompt(prompt, add_special=True, parse_special=True)))
            case Detokenise(tokens):
                known = [self._vocab.check(token) for token in tokens]
                return Text(_text(b"".join(self._vocab.piece(token, special=False) for token in known)))
            case Spell(tokens):
                return Pieces([self._vocab.piece(token, special=True) for token in tokens])
            case LayOutInfill():
                return self._infill_layout(question)
            case LookAtSlots():
                return SlotViews(self._slots.view())
        raise AssertionError(f"nobody answers {question}")

    def _control_token(self, text: str) -> int:
        found = self._vocab.tokenize(text, add_special=False, parse_special=True)
        return found[0] if len(found) == 1 and self._vocab.is_control(found[0]) else -1

    def _infill_layout(self, wanted: LayOutInfill) -> Layout:
        tokens = self._infill.tokens(wanted.prefix, wanted.suffix, wanted.extra, wanted.prompt, wanted.n_predict)
        return Layout(tokens, _text(self._vocab.detokenize(tokens, remove_special=False, unparse_special=True)))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
