"""One sequence of a reply: its text for a plain reply, its counts for a stream's usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llamabox.chat.answer import AnswerParser
from llamabox.chat.parts import Call, Part, Reasoning, Text
from llamabox.engine.events import Delta, Finished, Started, Timings, TokenProbs


@dataclass(slots=True)
class Choice:
    """Text and ids are gathered only where the reply needs them whole."""

    index: int  # in the reply: prompt * n + sequence
    n_prompt: int = 0
    n_cached: int = 0
    n_audio: int = 0  # of n_prompt: rows of sound
    prompt: str = ""  # as a text, where the reply shows it
    timings: Timings = field(default_factory=Timings)  # as of the last event
    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    probs: list[TokenProbs] = field(default_factory=list)
    prompt_probs: list[TokenProbs] = field(default_factory=list)
    end: Finished | None = None
    parser: AnswerParser | None = None  # None: all of the answer is text
    n_calls: int = 0
    n_thought: int = 0  # tokens of thoughts
    _said: list[Part] = field(default_factory=list)

    def start(self, event: Started) -> None:
        """The prompt is computed."""
        self.n_prompt = event.n_prompt
        self.n_cached = event.n_cached
        self.n_audio = event.n_audio
        self.prompt = event.prompt_text or ""

    def read(self, event: Delta) -> Sequence[Part]:
        """The parts that more text settles."""
        if self.parser is None:
            return (Text(event.text),) if event.text else ()
        parts = self.parser.push(event.text)
        is_thought = self.parser.is_thinking
        for part in parts:
            if isinstance(part, Reasoning):
                is_thought = True
            elif isinstance(part, Call):
                self.n_calls += 1
        if is_thought:
            self.n_thought += len(event.tokens)
        return parts

    def read_rest(self) -> Sequence[Part]:
        """The parts that were held back until the answer was over."""
        if self.parser is None:
            return ()
        parts = self.parser.finish()
        self.n_calls += sum(isinstance(part, Call) for part in parts)
        return parts

    def add(self, event: Delta) -> None:
        """More text, which is kept."""
        self.timings = event.timings
        self.pieces.append(event.text)
        if self.parser is not None:
            self._said += self.read(event)
        self.tokens += event.tokens
        self.probs += event.probs or ()

    def finish(self, event: Finished) -> None:
        """Take the last event of the sequence."""
        self.n_prompt = event.n_prompt
        self.timings = event.timings
        self.end = event

    def close(self) -> None:
        """Take what was held back of an answer that is kept."""
        self._said += self.read_rest()

    @property
    def n_predicted(self) -> int:
        """Tokens so far."""
        return self.timings.predicted_n

    @property
    def text(self) -> str:
        """All text so far, as the model said it."""
        return "".join(self.pieces)

    @property
    def parts(self) -> list[Part]:
        """The whole answer."""
        if self.parser is not None:
            return self._said
        return [Text(text)] if (text := self.text) else []

    @property
    def finished(self) -> Finished:
        """The end; asking before it is there is a bug."""
        assert self.end is not None
        return self.end
