"""What was read of an answer so far, as parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llamabox.chat.formats.values.input_text import InputText
from llamabox.chat.parts import Arguments, Call, Input, Part, Reasoning, Text
from llamabox.marks import NO_MARKS


class Said:
    """Collects parts. Blanks around thoughts and calls belong to the form; those within a text are the text's."""

    def __init__(
        self,
        new_id: Callable[[int], str],
        before_calls: str = "",
        is_custom: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """`new_id` makes the id of the call with an index, where the model writes none.

        `before_calls` are blanks that the form has between a text and a call. `is_custom` says of a tool's name whether
        its calls have an input instead of arguments.
        """
        self._new_id = new_id
        self._is_custom = is_custom
        self._input: InputText | None = None  # of the last call
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

    def go_on_thinking(self) -> None:
        """The answer goes on within a thought that was given: blanks at its beginning are its own."""
        self._kind = Reasoning

    def _say(self, kind: type[Text] | type[Reasoning], piece: str) -> None:
        if kind is not self._kind:
            self.pause()
            self._kind = kind
        piece = self._blank + (piece if piece.isascii() else piece.translate(NO_MARKS))
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
        self._end_input()
        if self._blank and self._kind is Text and (self._has_begun or self._keeps_first):
            self._parts.append(Text(self._blank))
        self._blank = ""

    def call(self, name: str, call_id: str = "") -> int:
        """A call begins. Returns its index."""
        self.pause(self._before_calls)
        self._end_input()
        index = self.n_calls
        self.n_calls += 1
        is_custom = self._is_custom(name)
        self._input = InputText() if is_custom else None
        self._parts.append(Call(index, call_id or self._new_id(index), name, is_custom))
        return index

    def arguments(self, index: int, piece: str) -> None:
        """More of the JSON text of a call's arguments."""
        if self._input is None:
            if piece:
                self._parts.append(Arguments(index, piece))
        elif text := self._input.push(piece):
            self._parts.append(Input(index, text))

    def _end_input(self) -> None:
        if self._input is not None and (text := self._input.end()):
            self._parts.append(Input(self.n_calls - 1, text))
        self._input = None


class Tools(Protocol):
    """What readers know of the tools that may be called."""

    def __contains__(self, name: str) -> bool:
        """Whether there is one of that name."""

    def has_grammar(self, name: str) -> bool:
        """Whether it takes a text of a grammar, which stands in JSON wherever strings have no control token behind."""

    def kinds(self, name: str, key: str) -> frozenset[str]:
        """The types of JSON that an argument may have; empty: any."""
