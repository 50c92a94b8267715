"""The tokens of an answer's thoughts, counted; and the end of a thought that would have more of them than it may."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from llamabox.engine.request import ThoughtBudget
from llamabox.engine.text.stop_strings import StopStrings
from llamabox.marks import REPLACED, mark


@dataclass(frozen=True, slots=True)
class _State:
    """After the tokens so far."""

    is_open: bool  # within a thought
    n_left: int  # tokens that thoughts may still have
    automaton: int = 0  # of the delimiters that count here
    cut: bytes = b""  # the beginning of a character


class ThoughtLimit:
    """Counts the tokens of one sequence's thoughts. Where they are used up within one, `forced` says what ends it.

    A token counts if a thought was open before it and is so behind it. An end waits for a character's last byte. What
    is forced hangs on nothing but the tokens so far, so a text has it wherever steps begin and end.
    """

    def __init__(self, budget: ThoughtBudget, marks: Seq[int], piece: Callable[[int, bool], bytes]) -> None:
        """`piece` gives a token's bytes, those of special ones on demand; `marks` are those of the parameters."""
        self._marks = {token: mark(i) for i, token in enumerate(marks)}
        self._piece = piece
        self._opens = StopStrings(budget.opens)
        self._closes = StopStrings(budget.closes)
        self._close = budget.close_tokens
        self._ending = (*budget.message_tokens, *budget.close_tokens)
        self._n_forced = 0  # tokens of the ending that were said
        self._state = _State(budget.is_begun, budget.n_tokens)

    @property
    def is_used_up(self) -> bool:
        """Whether the thought must end here."""
        return self._must_end(self._state)

    def forced(self) -> Seq[int]:
        """The tokens that end the thought, those that were not said yet; none where it may go on. Changes nothing."""
        return self._ending[self._n_forced :] if self.is_used_up else ()

    def take(self, token: int) -> None:
        """The next token of the text."""
        if not self.is_used_up:
            self._state = self._after(self._state, token)
            return
        self._n_forced += 1
        if self._n_forced == len(self._ending):
            self._state = _State(False, self._state.n_left)
            self._ending, self._n_forced = self._close, 0  # a further thought ends without the message

    def give_up(self) -> None:
        """The end may not be said here: this thought, and all others, go on as if there were no limit."""
        self._ending = ()

    def n_free(self, tokens: Seq[int]) -> int:
        """How many of `tokens` may come with nothing forced behind any of them. Changes nothing."""
        state = self._state
        if self._must_end(state):
            return 0
        for n, token in enumerate(tokens):
            state = self._after(state, token)
            if self._must_end(state):
                return n
        return len(tokens)

    def _must_end(self, state: _State) -> bool:
        return state.is_open and state.n_left <= 0 and not state.cut and bool(self._ending)

    def _after(self, state: _State, token: int) -> _State:
        """The state behind one more token that the model chose."""
        text, cut = self._text(state, token)
        is_open, automaton = state.is_open, state.automaton
        while text:
            words = self._closes if is_open else self._opens
            automaton, found = words.read(automaton, text)
            if found is None:
                break
            is_open, automaton, text = not is_open, 0, text[found[1] :]
        counts = state.is_open and is_open
        return _State(is_open, state.n_left - counts, automaton, cut)

    def _text(self, state: _State, token: int) -> tuple[str, bytes]:
        """The whole characters that a token completes, and the beginning of one that it leaves."""
        if token in self._marks:
            return self._marks[token], b""
        said = state.cut + self._piece(token, False)
        text, n_read = codecs.utf_8_decode(said, "replace", False)
        return text.translate(REPLACED), said[n_read:]
