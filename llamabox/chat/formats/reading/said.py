"""What was read of an answer so far, as parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llamabox.chat.parts import Arguments, Call, Part, Reasoning, Text
from llamabox.marks import NO_MARKS


class Said:
    """Collects parts. Blanks around thoughts and calls belong to the form; those within a text are the text's."""

    def __init__(self, new_id: Callable[[int], str], before_calls: str = "") -> None:
        """`new_id` makes the id of the call with an index, where the model writes none.

        `before_calls` are blanks that the form has between a text and a call.
        """
        self._new_id = new_id
        self._before_calls = before_calls
        self._parts: list[Part] = []
        self._kind: type[Text] | type[Reasoning] = Text
        self._blank = ""  # said, but not yet passed on
        self._has_begun = False  # something of the text or thought was passed on
        self._keeps_first = True  # blanks at the text's beginning are its own
        self.n_calls = 0

    def take(self) -> list[Part]:
        """The parts since the last time."""
        parts, self._parts = self._parts, []
        return parts

    def text(self, piece: str) -> None:
        self._say(Text, piece)

    def reasoning(self, piece: str) -> None:
        self._say(Reasoning, piece)

    def _say(self, kind: type[Text] | type[Reasoning], piece: str) -> None:
        if kind is not self._kind:
            self.pause()
            self._kind = kind
        piece = self._blank + piece.translate(NO_MARKS)
        if not self._has_begun and not self._keeps_first:
            piece = piece.lstrip()
        said = piece.rstrip()
        self._blank = piece[len(said) :]
        if said:
            self._parts.append(kind(said))
            self._has_begun = True

    def pause(self, before: str = "") -> None:
        """The text or thought ends here. Of the blanks at its end those that stand before `before` are its own."""
        if self._has_begun and before and self._blank.endswith(before) and len(self._blank) > len(before):
            self._parts.append(self._kind(self._blank[: -len(before)]))
        self._blank = ""
        self._has_begun = self._keeps_first = False
        self._kind = Text

    def end(self) -> None:
        """The answer ends here."""
        if self._blank and self._kind is Text and (self._has_begun or self._keeps_first):
            self._parts.append(Text(self._blank))
        self._blank = ""

    def call(self, name: str, call_id: str = "") -> int:
        """A call begins. Returns its index."""
        self.pause(self._before_calls)
        index = self.n_calls
        self.n_calls += 1
        self._parts.append(Call(index, call_id or self._new_id(index), name))
        return index

    def arguments(self, index: int, piece: str) -> None:
        if piece:
            self._parts.append(Arguments(index, piece))


class Tools(Protocol):
    """What readers know of the tools that may be called."""

    def __contains__(self, name: str) -> bool:
        """Whether there is one of that name."""

    def kinds(self, name: str, key: str) -> frozenset[str]:
        """The types of JSON that an argument may have; empty: any."""
