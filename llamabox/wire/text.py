"""The messages of the text worker.

JSON has no infinity: a ban in a logit bias, -inf, travels as null. All other floats are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from llamabox.engine.events import Activity, Event, StepTimes, Vector
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.wire.codec import Wire, configuring, header_only
from llamabox.wire.rows import activity_row, event_of, event_row, times_row
from llamabox.wire.text_config import ModelInfo, TextConfig


@dataclass(frozen=True, slots=True)
class Configure:
    """The first frame: what to load."""

    config: TextConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One prompt: strings and token ids in order. Only a leading string gets the model's BOS."""

    request_id: str
    prompt: list[str | int]
    params: GenerationParams
    add_special: bool = True
    parse_special: bool = True


@dataclass(frozen=True, slots=True)
class SubmitAll:
    """All prompts of one request, each as by a Submit: what they have in common, which may be long, travels once."""

    prompts: list[tuple[str, list[str | int]]]  # the request_id of each, and the prompt
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
    prompts: list[list[str | int]]
    add_special: bool = True
    parse_special: bool = True
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
    """A question with one Reply. `method` is one of those that the worker knows."""

    call_id: int
    method: str
    arguments: dict[str, Any]

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
    """The answer to a Call: `value`, or `error` as `errors.to_wire()`."""

    call_id: int
    value: Any = None
    error: dict[str, Any] | None = None


TextMessage = Configure | Submit | SubmitAll | Embed | Abort | Call | Ready | Step | Vectors | Reply


def _step_body(step: Step) -> list[Any]:
    return [activity_row(step.activity), times_row(step.times), *[event_row(event) for event in step.events]]


def _step(rows: list[Any]) -> Step:
    activity, times, *events = rows
    return Step(
        [event_of(row) for row in events],
        None if activity is None else Activity(*activity),
        None if times is None else StepTimes(*times),
    )


def _pack_vectors(message: Vectors) -> tuple[list[Any], bytes]:
    rows = [(one.request_id, one.index, one.n_tokens, len(one.data)) for one in message.vectors]
    return [activity_row(message.activity), *rows], b"".join(one.data for one in message.vectors)


def _vectors(rows: list[Any], payload: bytes) -> Vectors:
    ends = list(accumulate((row[3] for row in rows[1:]), initial=0))
    if ends[-1] != len(payload):
        raise ValueError(f"vectors of {ends[-1]} bytes are announced, and {len(payload)} came")
    data = [payload[start:stop] for start, stop in pairwise(ends)]
    vectors = [Vector(row[0], row[1], row[2], one) for row, one in zip(rows[1:], data, strict=True)]
    return Vectors(vectors, Activity(*rows[0]))


Submission = TypeVar("Submission", Submit, SubmitAll)


def _submit_body(submit: Submission) -> Submission:
    for token, bias in submit.params.sampling.logit_bias:
        assert math.isfinite(bias) or bias == -math.inf, f"a bias of {bias} for {token} was let through"
    return submit


def _submit(fields: dict[str, Any]) -> Submit:
    return Submit(**fields | {"params": _params(fields["params"])})


def _submit_all(fields: dict[str, Any]) -> SubmitAll:
    return SubmitAll([(name, prompt) for name, prompt in fields["prompts"]], _params(fields["params"]))


def _params(fields: dict[str, Any]) -> GenerationParams:
    fields["stop"] = tuple(fields["stop"])
    fields["lora"] = _pairs(fields["lora"])
    fields["sampling"] = _sampling(fields["sampling"])
    return GenerationParams(**fields)


def _sampling(fields: dict[str, Any]) -> SamplingParams:
    fields["samplers"] = tuple(fields["samplers"])
    fields["dry_sequence_breakers"] = tuple(fields["dry_sequence_breakers"])
    fields["logit_bias"] = tuple((token, -math.inf if bias is None else bias) for token, bias in fields["logit_bias"])
    return SamplingParams(**fields)


def _text_config(fields: dict[str, Any]) -> TextConfig:
    for name in ("tensor_split", "devices", "rpc_servers", "cpu_mask", "cpu_mask_batch", "control_vector_layers"):
        fields[name] = tuple(fields[name])
    for name in ("kv_overrides", "lora", "control_vectors"):
        fields[name] = _pairs(fields[name])
    return TextConfig(**fields)


def _pairs(rows: Iterable[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((first, second) for first, second in rows)


WIRES: dict[type[Any], Wire] = {
    Configure: configuring("configure", lambda fields: Configure(_text_config(fields))),
    Submit: header_only("submit", _submit, _submit_body),
    SubmitAll: header_only("submit_all", _submit_all, _submit_body),
    Embed: header_only("embed", lambda fields: Embed(**fields)),
    Abort: header_only("abort", lambda fields: Abort(**fields)),
    Call: header_only("call", lambda fields: Call(**fields)),
    Ready: header_only("ready", lambda fields: Ready(ModelInfo(**fields["info"]))),
    Step: header_only("step", _step, _step_body),
    Vectors: Wire("vectors", _pack_vectors, _vectors),
    Reply: header_only("reply", lambda fields: Reply(**fields)),
}
