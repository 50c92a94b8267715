"""What the engine tells about a request, in the order in which it happens.

For each (request_id, index): PrefillStart, or Progress where it was asked for, and PromptProbs where they were, then
Started, then Deltas, then exactly one of Finished or Failed. A Failed may also come first. An aborted request gets no
further event. PromptProbs come for index 0 alone, and before anything of the other ones.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any


class FinishReason(StrEnum):
    """OpenAI's word for why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"


class StopType(StrEnum):
    """llama.cpp's finer word for the same. NONE: there was nothing to generate from."""

    NONE = "none"
    EOS = "eos"
    WORD = "word"
    LIMIT = "limit"


class Source(StrEnum):
    """Where a draft comes from: a label in metrics and in the log."""

    HISTORY = "history"
    """The sequence's own prompt and text."""

    PREDICTION = "prediction"
    """What the client foresaw."""

    CORPUS = "corpus"
    """Finished outputs of other sequences."""

    LOOKUP = "lookup"
    """Counted n-grams."""

    MODEL = "model"
    """A draft model."""

    MTP = "mtp"
    """The model's own heads of multi-token prediction."""


@dataclass(slots=True)
class Timings:
    """Milliseconds and counts of one sequence. `prompt_n` excludes the `cache_n` tokens that were cached."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    queue_ms: float = 0.0
    n_drafted: int = 0  # tokens of drafts that were verified
    n_accepted: int = 0  # and those of them that came
    n_foreseen: int = 0  # the same of what the client foresaw
    n_foreseen_accepted: int = 0

    def snapshot(self) -> Timings:
        """A copy; copy.copy takes eight times as long, at every token."""
        return Timings(
            self.cache_n,
            self.prompt_n,
            self.prompt_ms,
            self.predicted_n,
            self.predicted_ms,
            self.queue_ms,
            self.n_drafted,
            self.n_accepted,
            self.n_foreseen,
            self.n_foreseen_accepted,
        )


AT_ONCE = 20e-6
"""Seconds within which llama_synchronize returns where there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds that the parts of one step took. The engine does not send its events, and leaves `emit` at 0."""

    schedule: float = 0.0  # to plan it
    decode: float = 0.0  # in llama_decode, and until a device has computed it
    sample: float = 0.0  # to choose its tokens, but for what was done beside the device
    update: float = 0.0  # to move the sequences on and make events of it
    emit: float = 0.0  # to encode and send the events of the step before

    @classmethod
    def of(
        cls,
        begun: float,
        planned: float,
        submitted: float,
        ready: float,
        computed: float,
        sampled: float,
        updated: float,
    ) -> StepTimes:
        """From when, in seconds, each part was done.

        Whether the device was at work while the host made itself `ready` shows when that then waits for it: a CPU has
        computed all by the time it is submitted.
        """
        was_beside = computed - ready > AT_ONCE
        decode = (computed if was_beside else submitted) - planned
        return cls(planned - begun, decode, sampled - planned - decode, updated - sampled)

    @property
    def host(self) -> float:
        """What the next llama_decode waits for."""
        return self.schedule + self.sample + self.update

    def with_emit(self, seconds: float) -> StepTimes:
        """A copy that says how long the events of the step before took to be sent."""
        return StepTimes(self.schedule, self.decode, self.sample, self.update, seconds)


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """What became of the drafts of one source."""

    source: Source
    n_drafts: int = 0
    n_drafted: int = 0  # tokens of them that were verified
    n_accepted: int = 0  # and those that came
    accepted_at: tuple[int, ...] = ()  # accepted tokens by their place in the draft, the first places alone

    def __add__(self, other: DraftCounts) -> DraftCounts:
        """The sum of two counts of the same source."""
        accepted_at = zip_longest(self.accepted_at, other.accepted_at, fillvalue=0)
        return DraftCounts(
            self.source,
            self.n_drafts + other.n_drafts,
            self.n_drafted + other.n_drafted,
            self.n_accepted + other.n_accepted,
            tuple(map(sum, accepted_at)),
        )


def _both(now: tuple[DraftCounts, ...], past: tuple[DraftCounts, ...]) -> tuple[DraftCounts, ...]:
    """Counts by source, added up."""
    sums = {one.source: one for one in past}
    for one in now:
        sums[one.source] = sums[one.source] + one if one.source in sums else one
    return tuple(sums.values())


def _largest() -> int:
    return field(default=0, metadata={"after": max})


def _now() -> int:
    return field(default=0, metadata={"after": lambda now, past: now})


@dataclass(slots=True)
class Activity:
    """What an engine did since it began, and what it holds. Seconds and tokens are those of the sequences' timings.

    A figure adds up over the lives of a worker, unless it says here that it is a `_largest` or of `_now`.
    """

    n_decode: int = 0  # batches computed
    n_busy: int = 0  # sequences in them, summed
    n_cached: int = 0  # prompt tokens that were not computed again
    n_prompt: int = 0  # prompt tokens that were
    prompt_ms: float = 0.0
    n_predicted: int = 0
    predicted_ms: float = 0.0
    n_encoded: int = 0  # media chunks that were encoded
    encode_ms: float = 0.0
    n_encode_hits: int = 0  # chunks whose rows were there, or on their way for another request
    n_tokens_max: int = _largest()  # the most cells that a slot held
    n_processing: int = _now()  # sequences that hold a slot
    n_waiting: int = _now()  # and that wait for one
    n_encoding: int = _now()  # chunks that wait for the encoder, or are in it
    n_resident: int = _now()  # cells in the KV memory, those that slots share counted once
    drafts: tuple[DraftCounts, ...] = field(default=(), metadata={"after": _both})

    def after(self, earlier: Activity) -> Activity:
        """This life's activity on top of that of the lives before it."""
        return Activity(*(after(*both) for after, *both in zip(_AFTER, _figures(self), _figures(earlier), strict=True)))

    def snapshot(self) -> Activity:
        """A copy, made at every step."""
        return Activity(*_figures(self))


_AFTER = [one.metadata.get("after", operator.add) for one in fields(Activity)]
_figures = operator.attrgetter(*(one.name for one in fields(Activity)))


@dataclass(slots=True)
class PrefillStart:
    """The prompt is about to be computed, and one step will not do: it may be a minute until Started.

    Told of a request's first sequence only, and not where Progress tells more.
    """

    request_id: str
    index: int
    n_prompt: int
    n_cached: int


@dataclass(slots=True)
class Progress:
    """How much of the prompt is in the slot: what was cached, and then once for each batch that had a part of it.

    Told of a request's first sequence only, whose prompt is that of all.
    """

    request_id: str
    index: int
    id_slot: int
    n_prompt: int
    timings: Timings  # prompt_n and prompt_ms so far

    @property
    def n_processed(self) -> int:
        return self.timings.cache_n + self.timings.prompt_n


@dataclass(slots=True)
class Started:
    """The prompt is computed and the first token is about to be reported."""

    request_id: str
    index: int
    id_slot: int
    n_prompt: int
    n_cached: int
    seed: int
    logit_bias: tuple[tuple[int, Annotated[float, "-inf"]], ...] | None = (
        None  # what its texts became; None: it has none
    )
    prompt_text: str | None = None  # where it was asked for
    n_audio: int = 0  # of n_prompt: rows of sound


@dataclass(slots=True)
class Likely:
    """A token, the bytes it says, and the natural logarithm of its probability; finite even where that is 0."""

    token: int
    piece: bytes
    logprob: float


@dataclass(slots=True)
class TokenProbs:
    """A sampled token among the likeliest ones, the likeliest first.

    From the model's logits, before any sampler; where the request asked for it, from what the samplers left, and then
    `top` has only tokens that could have come.
    """

    chosen: Likely
    top: list[Likely]


@dataclass(slots=True)
class PromptProbs:
    """The next tokens of the prompt among the likeliest ones in their places, from the model's logits.

    Told of each token where the request asked for it, those of one batch at a time, before anything Started: once for
    all sequences of the request. Nothing stands before the first token: its logprob is 0, and its `top` is empty.
    """

    request_id: str
    index: int
    probs: list[TokenProbs]


@dataclass(slots=True)
class Delta:
    """More text. `tokens` are the ids behind it; `text` may be empty while a possible stop string is held back.

    `probs` has an entry for each of `tokens` where the request asked for them, else it is None.
    """

    request_id: str
    index: int
    text: str
    tokens: list[int]
    timings: Timings
    probs: list[TokenProbs] | None = None


@dataclass(slots=True)
class Finished:
    """The end of a sequence. All text was sent in Deltas before."""

    request_id: str
    index: int
    reason: FinishReason
    stop_type: StopType
    stopping_word: str
    truncated: bool
    has_new_line: bool
    n_prompt: int
    n_resident: int  # tokens left in the slot's KV memory
    id_slot: int
    seed: int
    timings: Timings


@dataclass(slots=True)
class Failed:
    """The sequence cannot go on. `error` is `errors.to_wire()` of the reason."""

    request_id: str
    index: int
    error: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot, and the sequence in it, if there is one."""

    id_slot: int
    n_resident: int  # tokens
    request_id: str | None = None  # None: it is idle, and the rest means nothing
    n_prompt: int = 0
    n_decoded: int = 0
    truncated: bool = False


@dataclass(slots=True)
class Vector:
    """What became of one passage: little-endian float32, [n_floats], or [n_tokens, n_floats] unpooled."""

    request_id: str
    index: int
    n_tokens: int
    data: bytes


Event = PrefillStart | Progress | PromptProbs | Started | Delta | Finished | Failed


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one engine step brought forth."""

    events: list[Event]
    activity: Activity  # after it
    times: StepTimes | None  # None: nothing was computed
