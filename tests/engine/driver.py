"""Runs an engine over fakes and collects what each sequence said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from llamabox.engine.batch import MediaRows
from llamabox.engine.drafting.price import Price
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.events import (
    Delta,
    Event,
    Failed,
    Finished,
    PrefillStart,
    Progress,
    PromptProbs,
    Started,
    TokenProbs,
)
from llamabox.engine.grammar import Grammar, TokenMask
from llamabox.engine.kv.history import History
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.request import GenerationParams, Media, Prompt, Request, SamplingParams, Segment, Words
from llamabox.engine.text.stop_strings import StopStrings
from llamabox.errors import InvalidRequest
from tests.fakes import (
    EOG,
    FakeComing,
    FakeDrafter,
    FakeEncoder,
    FakeMemory,
    FakeRunner,
    FreePrice,
    Said,
    fresh_contents,
)

MAX_STEPS = 10_000
"""A test that takes more steps waits for something that never comes."""


@dataclass
class Transcript:
    """Everything one sequence reported."""

    prefill: PrefillStart | None = None
    progress: list[Progress] = field(default_factory=list)
    prompt_probs: list[TokenProbs] = field(default_factory=list)
    started: Started | None = None
    tokens: list[int] = field(default_factory=list)
    probs: list[TokenProbs] = field(default_factory=list)
    text: str = ""
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def is_over(self) -> bool:
        return self.finished is not None or self.failed is not None


class Clock:
    """Seconds that pass only as the test lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def engine_config(**fields: Any) -> EngineConfig:
    """As the options' defaults have it, where nothing else is said."""
    usual = {"context_shift": True, "cont_batching": True, "slot_similarity": 0.5, "gap_factor": 2.0}
    return EngineConfig(**usual | fields)


class Driver:
    """An engine, its transcripts, and the rule that events come in their order.

    `met` counts the situations that it came into, so that a test can say which ones it has seen.
    """

    def __init__(
        self,
        runner: FakeRunner | None = None,
        drafters: Seq[FakeDrafter] = (),
        encoder: FakeEncoder | None = None,
        price: Price | None = None,
        **config: object,
    ) -> None:
        """Drafts cost nothing unless there is a `price`.

        An `encoder` that has nothing to do but for what the test says makes a chunk once all wait for it.
        """
        self.runner = runner or FakeRunner()
        self.encoder = self.runner.encoder = encoder or FakeEncoder()
        self.clock = Clock()
        settings = engine_config(**{"n_slots": 4, "n_ctx": 64, **config})
        self.engine = Engine(
            self.runner, settings, drafters, self.encoder, price=price or FreePrice(), clock=self.clock
        )
        self.transcripts: dict[tuple[str, int], Transcript] = {}
        self.requests: dict[str, Request] = {}
        self.aborted: set[str] = set()
        self.compiling: dict[str, FakeComing] = {}  # by request: grammars that are not ready
        self.broken: dict[str, InvalidRequest] = {}  # by request: why its grammar could not be compiled
        self.n_steps = 0
        self.met: Counter[str] = Counter()
        self.asked_early: defaultdict[tuple[str, int], set[Media]] = defaultdict(set)  # before it got its slot

    def submit(self, request: Request, *, late: bool = False) -> None:
        """A grammar that is `late` is ready once the test `compiles` it, or once all wait for it."""
        if late and request.grammar is not None:
            coming = FakeComing(request.grammar)
            self.compiling[request.request_id] = coming
            request = replace(request, grammar=coming)
        self.engine.submit(request)
        self.requests[request.request_id] = request
        for index in range(request.params.n):
            self.transcripts[request.request_id, index] = Transcript()

    def abort(self, request_id: str) -> None:
        waits = any(key[0] == request_id for key in self.encoder.wanted)
        self.met["an abort of one that waits for the encoder"] += waits and bool(self.encoder.outstanding)
        self.met["an abort of one that waits for its grammar"] += self.compiling.pop(request_id, None) is not None
        self.engine.abort(request_id)
        self.aborted.add(request_id)

    def compile(self, index: int, *, fails: bool = False) -> None:
        """Let one of the grammars be ready, or let it be refused; which one `index` says, where there are any."""
        if not self.compiling:
            return
        request_id = list(self.compiling)[index % len(self.compiling)]
        coming = self.compiling.pop(request_id)
        running = [one for one in self.engine.running if one.request_id == request_id]
        self.met["a prompt that was computed before its grammar"] += any(
            one.n_computed > one.n_cached for one in running
        )
        if fails:
            self.met["a grammar that could not be compiled"] += 1
            self.broken[request_id] = InvalidRequest("Field 'tools': too large")
            self.engine.refuse(request_id, self.broken[request_id])
        else:
            coming.is_ready = True

    def encode(self, index: int, *, fails: bool = False) -> None:
        """Make one of the chunks that are asked for, or let that fail; which one `index` says, where there are any."""
        waiting = self.encoder.outstanding
        if not waiting:
            return
        index %= len(waiting)
        if fails:
            self.met["a chunk that could not be made"] += 1
            self.encoder.fail(waiting[index], InvalidRequest("Field 'prompt': an image that cannot be encoded"))
        else:
            self.met["a chunk that was made before one that was asked for earlier"] += index > 0
            self.encoder.make(waiting[index])

    def step(self) -> list[Event]:
        self.n_steps += 1
        assert self.n_steps <= MAX_STEPS, "the engine does not come to rest"
        if self.engine.rest() < inf:
            self.clock.now += self.engine.rest()
        elif self.encoder.outstanding:
            self.met["a wait of all for the encoder"] += 1
            self.encoder.make(self.encoder.outstanding[0])
        else:
            self.met["a wait of all for a grammar"] += 1
            self.compile(0)
        running = {sequence.key for sequence in self.engine.running}
        has_room = self.engine.n_waiting <= len(self.engine.cache.slots) - len(self.engine.running)
        events = self.engine.step().events
        self._note_asked_early()
        for event in events:
            self._take(event)
        for key in running - {sequence.key for sequence in self.engine.running}:
            if not self.transcripts[key].is_over:
                self.met["a sequence that gave way"] += 1
                self.asked_early[key] |= set(self.encoder.asked.get(key, []))
        held = [sequence for sequence in self.engine.running if sequence.is_held]
        self.met["a step while somebody waits for a grammar"] += bool(held and events)
        self.met["a step while somebody waits for the encoder"] += bool(self.encoder.outstanding and events)
        if self.engine.rest():
            self._check_rest()
        if has_room and self.engine.n_waiting:
            self._note_waiting()
        return events

    def check(self) -> None:
        """Ledger and memory agree, in what is in the cells as well."""
        assert self.engine.check_integrity() == []
        memory = self.runner.memory
        if memory.is_unified and not memory.has_part:  # a checkpoint put back is nobody else's
            assert self.engine.cache.usage()[0] == len(memory.cells), "shared cells are counted otherwise"
        assert foreign_cells(self.engine.cache, self.runner.memory) == []

    def run(self) -> None:
        """Step until idle; then ledger and memory must agree and nothing may be left over."""
        self.run_dry()
        self.check()
        assert self.encoder.is_empty()
        assert all(sampler.closed for sampler in self.runner.samplers)
        for (request_id, _), transcript in self.transcripts.items():
            assert transcript.is_over or request_id in self.aborted

    def run_dry(self) -> None:
        """Step until idle, if the engine is to go on afterwards."""
        while not self.engine.is_idle:
            self.step()

    def _note_asked_early(self) -> None:
        running = {(sequence.request_id, sequence.index) for sequence in self.engine.running}
        for key, chunks in self.encoder.wanted.items():
            if key not in running:
                self.asked_early[key] |= set(chunks)
                self.met["a chunk that was asked for while its text waited for a slot"] += 1

    def _check_rest(self) -> None:
        """Nothing was computed: each that runs waits for a chunk or a grammar, or keeps to a speed limit."""
        for sequence in self.engine.running:
            media = sequence.cells.media_at(sequence.n_computed)
            is_held = sequence.is_held or (media is not None and not self.encoder.is_ready(media))
            assert is_held or sequence.due(self.clock.now) > self.clock.now

    def _note_waiting(self) -> None:
        """There was a slot for everybody, so who waits does so for a prefix or for a slot of his choice."""
        running = {(sequence.request_id, sequence.index) for sequence in self.engine.running}
        for key, transcript in self.transcripts.items():
            request_id, index = key
            if transcript.is_over or request_id in self.aborted or key in running:
                continue
            if self.requests[request_id].params.id_slot < 0:
                self.met["a wait for a sibling's prefix" if index else "a wait for another's prefix"] += 1

    def _take(self, event: Event) -> None:
        transcript = self.transcripts[event.request_id, event.index]
        assert event.request_id not in self.aborted
        assert not transcript.is_over, "an event after the end"
        assert isinstance(event, Failed) or event.request_id not in self.compiling, "it may still be refused"
        match event:
            case PrefillStart():
                assert transcript.prefill is None
                assert transcript.started is None
                assert not self.requests[event.request_id].params.return_progress
                transcript.prefill = event
            case Progress():
                assert transcript.started is None
                transcript.progress.append(event)
            case PromptProbs():
                assert transcript.started is None
                transcript.prompt_probs += event.probs
            case Started():
                assert transcript.started is None
                transcript.started = event
                params = self.requests[event.request_id].params
                first = self.transcripts[event.request_id, 0]
                n_told, n_all = len(first.prompt_probs), event.n_prompt if params.n_prompt_probs else 0
                assert n_told == n_all or (first.failed is not None and n_told < n_all)
                assert not event.index or not transcript.prompt_probs
                self.met["a prefix that was resident"] += event.n_cached > 0
                prompt = History.of(self.requests[event.request_id].prompt)
                resident = said_by(prompt, event.n_cached)
                cached = {said[0] for said in resident if isinstance(said, tuple)}
                self.met["a media chunk that was resident"] += bool(cached)
                asked = self.encoder.asked.get((event.request_id, event.index), [])
                again = {media for media in cached if said_by(prompt, len(prompt)).count((media, 0)) > 1}
                early = self.asked_early[event.request_id, event.index]  # and became resident since
                assert not (cached - again) & (set(asked) - early), "a resident chunk was asked for"
            case Delta():
                assert transcript.started is not None
                transcript.tokens += event.tokens
                transcript.probs += event.probs or []
                transcript.text += event.text
            case Finished():
                assert transcript.started is not None
                transcript.finished = event
                is_text = History.of(self.requests[event.request_id].prompt).is_text
                self.met["a shift of a text with media"] += (
                    event.truncated and self.engine.context_shift and not is_text
                )
            case Failed():
                transcript.failed = event


def foreign_cells(cache: KVCache, memory: FakeMemory) -> list[str]:
    """Sentences about slots in which a cell is not what its tokens make of it, once all that is put off is done.

    Positions tell nothing of that: a cell of another text may stand at every one of them.
    """
    problems = []
    for slot in cache.slots:
        said = said_by(slot.resident, slot.n_exact)
        # A sliding window has forgotten the beginning.
        n_missing = len(slot.resident) - len(memory.of(slot.slot_id))
        contents, state = fresh_contents(said, slot.resident.lora, memory.n_window, not memory.partial_removal)
        expected = contents[n_missing:]
        found = memory.contents(slot.slot_id)[: len(expected)]
        if found != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
            problems.append(f"slot {slot.slot_id}: cell {n_missing + at} is not of its text")
        if memory.states.get(slot.slot_id, state) != state and slot.n_exact == len(slot.resident):
            problems.append(f"slot {slot.slot_id}: its state is not of its text")
    return problems


def said_by(history: History, n_cells: int) -> tuple[Said, ...]:
    """What the first `n_cells` cells say."""
    said: list[Said] = []
    for _, stretch in history.rows(0, n_cells):
        if isinstance(stretch, MediaRows):
            said += [(stretch.media, row) for row in range(stretch.start, stretch.stop)]
        else:
            said += stretch
    return tuple(said)


def request(
    request_id: str = "r",
    prompt: Iterable[int | Media] = (1, 2, 3),
    sampling: dict[str, object] | None = None,
    grammar: Grammar | None = None,
    **params: object,
) -> Request:
    """A greedy request that never meets the end-of-generation token unless asked for."""
    chosen = SamplingParams(**{"temperature": 0.0, "seed": 7, "ignore_eos": True, **(sampling or {})})  # type: ignore[arg-type]
    values: dict[str, object] = {"n_predict": 8, **params}
    generation = GenerationParams(sampling=chosen, **values)  # type: ignore[arg-type]
    stop = StopStrings(generation.stop)
    segments = segments_of(prompt)
    early = early_mask(generation.stop_tokens) if generation.n_least else None
    return Request(request_id=request_id, prompt=segments, params=generation, grammar=grammar, stop=stop, early=early)


def early_mask(stop_tokens: Iterable[int]) -> TokenMask:
    """All of the fake vocabulary's tokens but those that end a text."""
    may_come = np.ones(288, np.uint8)
    may_come[[EOG, *stop_tokens]] = 0
    return np.packbits(may_come, bitorder="little").view(np.uint32)


def segments_of(parts: Iterable[int | Media]) -> Prompt:
    """A prompt of tokens and media chunks in order; tokens that follow one another are one segment."""
    segments: list[Segment] = []
    for part in parts:
        if isinstance(part, Media):
            segments.append(part)
        elif segments and isinstance(segments[-1], Words):
            segments[-1] = Words((*segments[-1].tokens, part))
        else:
            segments.append(Words((part,)))
    return tuple(segments)


def alone(asked: Request, *, memory: FakeMemory | None = None, **config: object) -> dict[int, Transcript]:
    """What `asked` gets from an engine of its own, by index."""
    driver = Driver(FakeRunner(memory=memory), (), None, None, **config)
    driver.submit(asked)
    driver.run()
    return {index: driver.transcripts[asked.request_id, index] for index in range(asked.params.n)}
