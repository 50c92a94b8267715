"""An answer's text, taken apart into what is thought, what is said, and which tools are called.

The parser is total: what fits nothing is text, and nothing is ever lost. It reads every character once, and holds back
no more than might become a delimiter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamabox.chat.formats.feed import Feed, Reading, blank, delimiters
from llamabox.chat.formats.form import Format, NamedCalls
from llamabox.chat.formats.reading.channels import ChannelReader
from llamabox.chat.formats.reading.said import Said
from llamabox.chat.formats.reading.sections import Section
from llamabox.chat.formats.values.tools import ToolSchemas
from llamabox.chat.parts import Part
from llamabox.marks import is_mark

QUOTES = ("`", '"', "'")
"""Characters that stand on both sides of what is spoken of."""


class AnswerParser:
    """Takes one answer apart while it arrives.

    Control tokens stand in the text as marks (llamabox.marks); a format whose delimiters are control tokens has marks
    in it too, so that no text of the model's can be taken for one.
    """

    def __init__(
        self,
        form: Format,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        inputs: Mapping[str, Mapping[str, str]] | None = None,
        prompt: str = "",
        in_thought: bool | None = None,
        may_quote: bool = True,
        new_id: Callable[[int], str] = "call_{}".format,
    ) -> None:
        """`prompt` is the end of the prompt: it may have opened a thought, or `in_thought` says whether it did.

        `may_quote`: no grammar takes a thought's end within quotes for its end. `new_id` makes ids of calls, by index.

        `inputs` are the formats of those of the `tools` that are custom (chat.custom).
        """
        self._form = form
        self._may_quote = may_quote
        self._feed = Feed()
        known = ToolSchemas(tools, inputs)
        self._said = Said(new_id, form.before_calls, known.is_custom)
        self._thought = delimiters(form.thought.open) if form.thought else delimiters()
        self._thought_end = delimiters(form.thought.close) if form.thought else delimiters()
        self._section = Section(form.calls, known, others=self._thought.texts) if form.calls else None
        openings = self._section.openings if self._section else ()
        self._openings = delimiters(*openings, *self._thought.texts, *form.skipped)
        self._ends_thought = delimiters(*self._thought_end.texts, *(text for text in openings if len(text) > 1))
        opened = opens_thought(form, prompt)
        self._is_thinking = form.thought is not None and (opened if in_thought is None else in_thought)
        if self._is_thinking and not opened:
            self._said.go_on_thinking()
        if isinstance(form.calls, NamedCalls) and opens_call(form.calls, prompt):
            self._feed.add(form.calls.open)
        channels = ChannelReader(form.channels, self._section, known, prompt) if form.channels else None
        self._reading = channels.read(self._feed, self._said) if channels else self._read()
        self._has_ended = False

    @property
    def is_thinking(self) -> bool:
        """Whether a thought has begun and not ended. In channels a thought is told by its parts alone."""
        return self._is_thinking

    def push(self, text: str) -> list[Part]:
        """Read on. Returns the parts that this text settled."""
        self._feed.add(text)
        self._go_on()
        return self._said.take()

    def finish(self) -> list[Part]:
        """The answer is over. Returns what was held back."""
        self._feed.is_final = True
        self._go_on()
        self._said.end()
        return self._said.take()

    def _go_on(self) -> None:
        if not self._has_ended:
            self._has_ended = next(self._reading, self) is self

    def _read(self) -> Reading[None]:
        feed, said = self._feed, self._said
        if self._is_thinking:
            yield from self._think()
        elif self._thought_end.texts:
            yield from self._stray_end()
        if self._section is not None and self._section.is_bare:
            yield from self._read_bare(self._section)
        while True:
            opening = yield from self._openings.until(feed, said.text)
            if opening is None:
                return
            if opening in self._thought.texts:
                said.pause()
                yield from self._think()
            elif opening in self._form.skipped:
                said.pause()
            else:
                assert self._section is not None
                no_call = yield from self._section.read(feed, said, opening)
                said.text(no_call)

    def _think(self) -> Reading[None]:
        """Read a thought up to its end, which may be a call. An end within quotes is spoken of, and ends nothing."""
        self._is_thinking = True
        before = ""

        def say(piece: str) -> None:
            nonlocal before
            before = piece[-1:] or before
            self._said.reasoning(piece)

        while True:
            end = yield from self._ends_thought.until(self._feed, say)
            if end is None:
                break
            if end in self._thought_end.texts:
                is_text = self._may_quote and not any(map(is_mark, end))
                if is_text and before in QUOTES and (yield from self._is_next(before)):
                    say(end)
                    continue
                break
            assert self._section is not None
            no_call = yield from self._section.read(self._feed, self._said, end)
            if not no_call:
                break
            self._said.reasoning(no_call)
        self._is_thinking = False
        self._said.pause()

    def _is_next(self, character: str) -> Reading[bool]:
        """Whether that character comes next, which is not taken."""
        while not len(self._feed) and not self._feed.is_final:
            yield
        return self._feed.text[self._feed.at : self._feed.at + 1] == character

    def _stray_end(self) -> Reading[None]:
        """Drop the end of a thought that was never begun, where the answer begins with it."""
        blanks = yield from blank(self._feed)
        if (yield from self._thought_end.next(self._feed)) is None:
            self._said.text(blanks)
        else:
            self._said.pause()

    def _read_bare(self, section: Section) -> Reading[None]:
        blanks = yield from blank(self._feed)
        no_call = yield from section.read_bare(self._feed, self._said)
        if self._said.n_calls == 0:
            self._said.text(blanks + no_call)
        else:
            self._said.pause()


def opens_call(calls: NamedCalls, prompt: str) -> bool:
    """Whether the prompt ends with the opening of a call, behind which text has a name of its own."""
    return bool(calls.open.strip()) and prompt.rstrip().endswith(calls.open.strip())


def opens_thought(form: Format, prompt: str) -> bool:
    """Whether the prompt ends within a thought that it opened."""
    return bool(
        form.thought
        and form.thought.open.strip()
        and not form.channels
        and prompt.rstrip().endswith(form.thought.open.strip())
    )
