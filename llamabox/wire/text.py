"""The messages of the text worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamabox.engine.events import Activity, Event, StepTimes, Vector
from llamabox.engine.request import GenerationParams, PromptText
from llamabox.wire.questions import Answer, Question
from llamabox.wire.text_config import ModelInfo, TextConfig


@dataclass(frozen=True, slots=True)
class Configure:
    """The first frame: what to load."""

    config: TextConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One prompt: strings, token ids and media in order. It gets the model's BOS unless it begins with a token id."""

    request_id: str
    prompt: PromptText
    params: GenerationParams
    prediction: str = ""  # what the client foresees, for the worker to tokenise


@dataclass(frozen=True, slots=True)
class SubmitAll:
    """All prompts of one request, each as by a Submit: what they have in common, which may be long, travels once."""

    prompts: list[tuple[str, PromptText]]  # the request_id of each, and the prompt
    params: GenerationParams

    @property
    def submits(self) -> list[Submit]:
        """They share the params."""
        return [Submit(request_id=name, prompt=prompt, params=self.params) for name, prompt in self.prompts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Some of a request's passages, each as a Submit's prompt: each gets a Vector, or the request one Failed.

    A request may be sent in several of these, one after the other.
    """

    request_id: str
    first: int  # the place of prompts[0] among all of the request's
    n_left: int  # passages that have no vector yet, with these and those that are still to be sent
    prompts: list[PromptText]
    field: str = "input"  # what errors call them
    query: str | None = None  # of a reranker: each prompt is one text, which is paired with this
    n_document: int | None = None  # the most tokens of it that are looked at
    truncate: bool = False  # cut off what does not fit of it, instead of refusing it


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget a request: all its sequences end, without further events. A call that waits for a slot is one, too."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """A question, which gets one Reply."""

    call_id: int
    question: Question[Any]

    @property
    def request_id(self) -> str:
        """What an Abort calls it."""
        return f"call {self.call_id}"


@dataclass(frozen=True, slots=True)
class Ready:
    """The model answers from now on."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class Step:
    """Everything that one engine step brought forth, and what this worker has done by then."""

    events: list[Event]
    activity: Activity | None = None  # None: as before
    times: StepTimes | None = None  # None: nothing was computed


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one batch made of passages, of any requests."""

    vectors: list[Vector]
    activity: Activity


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a Call: the question's answer, or `error` as `errors.to_wire()`."""

    call_id: int
    answer: Answer | None = None
    error: dict[str, Any] | None = None


TextMessage = Configure | Submit | SubmitAll | Embed | Abort | Call | Ready | Step | Vectors | Reply
