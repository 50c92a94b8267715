"""The messages between the server process and a worker, and their encoding.

    server → worker   Configure · Submit · Embed · Abort · Call · Shutdown
    worker → server   Loading · Ready · LoadFailed · Step · Vectors · Reply · StopAsked

A frame is `u32 header length | u32 payload length | header (JSON) | payload (raw bytes)`, little endian.
The header is `[kind, fields]`. One Step carries all events of all requests of one engine step.
The payload is the place of tensors and images: Vectors have one, all other messages none.

JSON has no infinity: a ban in a logit bias, -inf, travels as null. All other floats are finite.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import orjson

from llamabox.engine.events import Activity, Event, StepTimes, Vector
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import ChannelBroken, LlamaboxError, ServerFault, from_wire
from llamabox.workers.rows import activity_row, event_of, event_row, times_row
from llamabox.workers.text_config import ModelInfo, TextConfig

PREFIX = struct.Struct("<II")
MAX_FRAME = 1 << 30
"""A longer frame is a broken peer, not a message."""


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
    logit_bias: list[tuple[int | str, float]] = field(default_factory=list)  # a string biases each of its tokens
    add_special: bool = True
    parse_special: bool = True


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
    """Forget a request: all its sequences end, without further events."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """A question with one Reply. `method` is one of those in workers.text."""

    call_id: int
    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Finish the step, free the model, exit 0."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Load progress, 0 to 1."""

    progress: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model answers from now on."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be served; `error` is `errors.to_wire()`. The worker exits after it."""

    error: dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody sent the worker a SIGTERM: it goes on, and the server is to stop everything in order."""


ToWorker = Configure | Submit | Embed | Abort | Call | Shutdown
Message = ToWorker | Loading | Ready | LoadFailed | Step | Vectors | Reply | StopAsked


def encode(message: Message) -> bytes:
    """A whole frame. A snapshot: what the engine changes in an event afterwards does not show.

    Raises ServerFault for a message longer than MAX_FRAME, TypeError for a value that JSON has no word for.
    """
    kind = _KIND_OF[type(message)]
    body: Any = message
    payload = b""
    if isinstance(message, Vectors):
        rows = [(one.request_id, one.index, one.n_tokens, len(one.data)) for one in message.vectors]
        body = [activity_row(message.activity), *rows]
        payload = b"".join(one.data for one in message.vectors)
    elif isinstance(message, Step):
        body = [
            activity_row(message.activity),
            times_row(message.times),
            *[event_row(event) for event in message.events],
        ]
    elif isinstance(message, Submit):
        _check_biases(message.logit_bias)
        _check_biases(message.params.sampling.logit_bias)
    try:
        header = orjson.dumps((kind, body))
    except orjson.JSONEncodeError:
        # Most likely a lone surrogate, which UTF-8 cannot carry and a JSON body can ("\\ud800").
        plain = body if isinstance(message, Step | Vectors) else asdict(message)
        header = orjson.dumps((kind, _without_surrogates(plain)))
    n_bytes = len(header) + len(payload)
    if n_bytes > MAX_FRAME:
        raise ServerFault(f"a {kind} message of {n_bytes} bytes is over the {MAX_FRAME} that a frame may have")
    return PREFIX.pack(len(header), len(payload)) + header + payload


def decode(header: bytes, payload: bytes = b"") -> Message:
    """The message in a frame. Raises ChannelBroken for anything that `encode` does not make."""
    try:
        kind, body = orjson.loads(header)
        if kind in _BUILD_WITH_PAYLOAD:
            return _BUILD_WITH_PAYLOAD[kind](body, payload)
        if payload:
            raise ValueError(f"a {kind} message has no payload, but {len(payload)} bytes came with it")
        return _BUILD[kind](body)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise ChannelBroken(f"a frame holds no message: {exc!r} in {header[:80]!r}") from exc


def frame_length(prefix: bytes) -> tuple[int, int]:
    """Header and payload lengths out of a frame's first eight bytes. Raises ChannelBroken if they are absurd."""
    n_header, n_payload = PREFIX.unpack(prefix)
    if n_header + n_payload > MAX_FRAME:
        raise ChannelBroken(f"a frame of {n_header} + {n_payload} bytes is announced; at most {MAX_FRAME} is right")
    return n_header, n_payload


def read_error(wire: dict[str, Any]) -> LlamaboxError:
    """`errors.from_wire`, but an error that cannot be read is an error as well."""
    try:
        return from_wire(wire)
    except (KeyError, TypeError) as exc:
        return ServerFault(f"the worker failed, with a reason that cannot be read: {wire!r} ({exc!r})")


def _step(rows: list[Any]) -> Step:
    activity, times, *events = rows
    return Step(
        [event_of(row) for row in events],
        None if activity is None else Activity(*activity),
        None if times is None else StepTimes(*times),
    )


def _vectors(rows: list[Any], payload: bytes) -> Vectors:
    ends = list(accumulate((row[3] for row in rows[1:]), initial=0))
    if ends[-1] != len(payload):
        raise ValueError(f"vectors of {ends[-1]} bytes are announced, and {len(payload)} came")
    data = [payload[start:stop] for start, stop in pairwise(ends)]
    vectors = [Vector(row[0], row[1], row[2], one) for row, one in zip(rows[1:], data, strict=True)]
    return Vectors(vectors, Activity(*rows[0]))


def _check_biases(biases: Iterable[tuple[Any, float]]) -> None:
    for token, bias in biases:
        assert math.isfinite(bias) or bias == -math.inf, f"a bias of {bias} for {token!r} was let through"


def _biases(rows: Iterable[list[Any]]) -> list[tuple[Any, float]]:
    return [(token, -math.inf if bias is None else bias) for token, bias in rows]


def _sampling(fields: dict[str, Any]) -> SamplingParams:
    fields["samplers"] = tuple(fields["samplers"])
    fields["dry_sequence_breakers"] = tuple(fields["dry_sequence_breakers"])
    fields["logit_bias"] = tuple(_biases(fields["logit_bias"]))
    return SamplingParams(**fields)


def _submit(fields: dict[str, Any]) -> Submit:
    params = fields["params"]
    params["stop"] = tuple(params["stop"])
    params["lora"] = _pairs(params["lora"])
    params["sampling"] = _sampling(params["sampling"])
    fields["params"] = GenerationParams(**params)
    fields["logit_bias"] = _biases(fields["logit_bias"])
    return Submit(**fields)


def _text_config(fields: dict[str, Any]) -> TextConfig:
    for name in ("tensor_split", "devices", "rpc_servers", "cpu_mask", "cpu_mask_batch", "control_vector_layers"):
        fields[name] = tuple(fields[name])
    for name in ("kv_overrides", "lora", "control_vectors"):
        fields[name] = _pairs(fields[name])
    return TextConfig(**fields)


def _pairs(rows: Iterable[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((first, second) for first, second in rows)


def _without_surrogates(value: Any) -> Any:
    """The same JSON value with each lone surrogate in its strings replaced by U+FFFD."""
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
    return value


_BUILD: dict[str, Callable[[Any], Message]] = {
    "configure": lambda fields: Configure(_text_config(fields["config"])),
    "submit": _submit,
    "embed": lambda fields: Embed(**fields),
    "abort": lambda fields: Abort(**fields),
    "call": lambda fields: Call(**fields),
    "shutdown": lambda fields: Shutdown(**fields),
    "loading": lambda fields: Loading(**fields),
    "ready": lambda fields: Ready(ModelInfo(**fields["info"])),
    "load_failed": lambda fields: LoadFailed(**fields),
    "step": _step,
    "reply": lambda fields: Reply(**fields),
    "stop_asked": lambda fields: StopAsked(**fields),
}

_BUILD_WITH_PAYLOAD: dict[str, Callable[[Any, bytes], Message]] = {"vectors": _vectors}

_KIND_OF: dict[type[Message], str] = {
    Configure: "configure",
    Submit: "submit",
    Embed: "embed",
    Abort: "abort",
    Call: "call",
    Shutdown: "shutdown",
    Loading: "loading",
    Ready: "ready",
    LoadFailed: "load_failed",
    Step: "step",
    Vectors: "vectors",
    Reply: "reply",
    StopAsked: "stop_asked",
}
