"""The batching loop: schedule → execute → update."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from llamabox import errors
from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.drafting.drafts import Drafts
from llamabox.engine.drafting.price import LearntPrice, Price
from llamabox.engine.drafting.verification import Verification, begin, sample
from llamabox.engine.events import Activity, StepResult, StepTimes, StopType
from llamabox.engine.kv.checkpoints import USUAL_LIMITS, CheckpointLimits
from llamabox.engine.kv.copy_time import CopyTime
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.slots import Slots
from llamabox.engine.reporter import Likelihoods, Reporter
from llamabox.engine.request import RANDOM_SEED, Request, n_cells
from llamabox.engine.scheduling.misses import explainer
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.scheduler import MAX_FORCED, Scheduler
from llamabox.engine.scheduling.work import Work
from llamabox.engine.seams import Encoder, Runner
from llamabox.engine.sequence import Sequence, State, sequences_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The engine's own settings. `n_ctx` is the context of one slot in cells. Defaults are those of the options."""

    n_slots: int
    n_ctx: int
    context_shift: bool
    cont_batching: bool
    slot_similarity: float  # see admission.Admission
    gap_factor: float  # see pacing.Pacing
    host_budget: int = 0  # bytes of host memory for what slots have to give up
    checkpoints: CheckpointLimits = USUAL_LIMITS


class Engine:
    """Generates for many requests at once. Single-threaded: every method is called on one and the same thread.

    For any interleaving of requests each sequence's tokens equal those it would have got alone.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        drafters: Seq[Drafter] = (),
        encoder: Encoder | None = None,
        *,
        price: Price | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """The first of the `drafters` is asked first. The `price` of drafts is learnt where none is given.

        Without an `encoder` the runner must take no media.
        """
        assert runner.facts.n_batch >= config.n_slots, "every slot may decode in one step"
        assert encoder is not None or not runner.facts.takes_media
        self._runner = runner
        self.config = config
        self._clock = clock
        self._pacing = Pacing(factor=config.gap_factor)
        self._requests: dict[str, list[Sequence]] = {}
        self._has_nan = False  # the memory may hold a NaN, and is wiped as soon as nobody runs
        self._resting_until: float | None = None  # when the first sequence is due
        self._reporter = Reporter()
        self._likelihoods = Likelihoods(runner)
        self.cache = KVCache(
            runner.memory, config.n_slots, config.n_ctx, config.host_budget, CopyTime(clock), config.checkpoints
        )
        self.slots = Slots(self.cache, lambda: self.running)
        self.context_shift = config.context_shift and self.cache.can_shift
        self.may_draft = self.cache.n_draftable() > 0 and runner.facts.may_draft
        price = price or LearntPrice(runner.facts, is_unified=self.cache.is_unified)
        self._drafts = Drafts(drafters if self.may_draft else (), self.cache, price, clock)
        self._scheduler = Scheduler(
            self.cache,
            self._pacing,
            runner.facts,
            self._drafts,
            cont_batching=config.cont_batching,
            slot_similarity=config.slot_similarity,
            encoder=encoder,
            on_start=explainer(self.cache.slots, runner),
        )

    @property
    def is_idle(self) -> bool:
        return self._scheduler.is_idle and self._reporter.is_empty

    @property
    def is_drafting(self) -> bool:
        """Whether anything is ever drafted."""
        return self._drafts.is_on

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot; read only."""
        return self._scheduler.running

    @property
    def n_waiting(self) -> int:
        return self._scheduler.n_waiting

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ContextExceeded or InvalidRequest, and then nothing was queued."""
        assert request.request_id not in self._requests
        self._scheduler.check(request)
        if not n_cells(request.prompt):
            self._reporter.nothing(request)
            return
        seed = request.params.sampling.seed
        if seed == RANDOM_SEED:
            seed = secrets.randbelow(RANDOM_SEED)
        sequences = sequences_of(request, seed, self._clock())
        self._requests[request.request_id] = sequences
        self._scheduler.chunks.take(request)
        for sequence in sequences:
            self._scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """Forget a request and free its slots at once; it gets no further event. Unknown ids are ignored."""
        self._reporter.forget(request_id)
        for sequence in self._requests.pop(request_id, ()):
            if sequence.state is not State.ENDED:
                self._remove(sequence)
        self._scheduler.chunks.let_go(request_id)

    def refuse(self, request_id: str, error: errors.LlamaboxError) -> None:
        """End a request whose grammar cannot be compiled. Unknown ids are ignored."""
        for sequence in self._requests.get(request_id, ()):
            if sequence.state is not State.ENDED:
                self._fail(sequence, error)

    def step(self) -> StepResult:
        """Do one step. With nothing to do its result has no event."""
        self._wipe_nan()  # an abort may have ended the last one that ran
        times = self._resting_until = None
        self._admit(begun := self._clock())
        if self._reporter.is_empty:  # else the events go out first: a step may take long
            work = self._plan(begun)
            if work.batch:
                times = self._compute(work, begun)
                self._wipe_nan()
            else:
                assert self._resting_until is not None or work.stuck or self._scheduler.is_idle, "no progress is made"
        return StepResult(self._reporter.take(), self.activity(), times)

    def _compute(self, work: Work, begun: float) -> StepTimes:
        """Run the planned step. `begun` is when planning it started, in clock seconds."""
        planned = self._clock()
        submitted = self._execute(work)
        verified, failed = begin(work.shares, self._runner)  # beside a device that computes
        ready = self._clock()
        self._runner.wait()
        computed = self._clock()
        failed += sample(verified, self._runner)
        for sequence, error in failed:
            self._fail(sequence, error)
        sampled = self._clock()
        self._update(work, verified, sampled)
        updated = self._clock()
        # Taking the tokens that grammars force is part of every stream's gap, too.
        seconds = updated - planned
        self.cache.copy_time.computed(is_awaited=work.is_awaited)
        if work.shares and not work.copies:  # else it was not computed, or took longer than its rows do
            self._pacing.observe(
                n_decode=work.n_decode, n_prefill=work.n_prefill, n_forced=work.n_forced, seconds=seconds
            )
            if work.n_decode and not work.n_prefill and not work.n_forced:
                self._drafts.took(work.batch.runs, work.n_context, seconds)
        return StepTimes.of(begun, planned, submitted, ready, computed, sampled, updated)

    def rest(self) -> float:
        """Seconds for which a step would compute nothing, unless something is submitted, aborted or encoded meanwhile.

        Above 0 while every running sequence keeps to a speed limit and the last step found none of them due, or waits
        for the encoder or a grammar: inf where all do.
        """
        return 0.0 if self._resting_until is None else max(0.0, self._resting_until - self._clock())

    def activity(self) -> Activity:
        """A snapshot."""
        done = self._reporter.done
        done.n_resident, n_most = self.cache.usage()
        done.drafts = self._drafts.tally.counts()
        done.n_tokens_max = max(done.n_tokens_max, n_most)
        done.n_processing = len(self._scheduler.running)
        done.n_waiting = self._scheduler.n_waiting
        self._scheduler.chunks.count(done)
        return done.snapshot()

    def check_integrity(self) -> list[str]:
        """Differences between the ledger and the native memory, and slots that leaked; empty when all is well."""
        return self._scheduler.check_integrity()

    def _wipe_nan(self) -> None:
        if self._has_nan and not self.running:
            self.cache.wipe()
            self._has_nan = False

    def _admit(self, now: float) -> None:
        """Give slots to those who can have one. Where one cannot begin, it has failed, and its slot is free again."""
        is_done = False
        while not is_done:
            is_done = True
            for sequence in self._scheduler.admit(now):
                try:
                    sequence.begin(self._runner, self.config.n_ctx)
                    self._reporter.admitted(sequence, now, self._runner.facts.n_ubatch)
                except errors.RequestError as error:
                    self._fail(sequence, error)
                    is_done = False

    def _plan(self, now: float) -> Work:
        """Plan a step. Sequences that cannot go on have failed by then."""
        work = self._scheduler.schedule(now)
        for sequence, error in work.stuck:
            self._fail(sequence, error)
        if not work.batch and not work.stuck:
            self._resting_until = work.next_due
        return work

    def _execute(self, work: Work) -> float:
        """Begin the batch. If it could not be computed, the work has no shares afterwards. Since when it may run."""
        try:
            self._runner.execute(work.batch)
        except errors.NoRoom as error:
            self._shed(work, error)
            return self._clock()
        except errors.DecodeError as error:
            self._lose(work, error)
            return self._clock()
        submitted = self._clock()
        self._drafts.computed()
        self.cache.carried_out(len(work.shares))
        self._reporter.done.n_decode += 1
        self._reporter.done.n_busy += len(work.shares)
        for share in work.shares:
            sequence = share.sequence
            assert sequence.slot is not None
            self.cache.computed(sequence.slot, sequence.cells, share.stop, sequence.drafts)
        return submitted

    def _shed(self, work: Work, error: errors.NoRoom) -> None:
        """There was no room, and nothing was computed: drafts go, or else cached cells, or the latest comer waits."""
        self.cache.carried_out(len(work.shares))  # libllama does what was put off before it looks for room
        is_enough = self._drafts.give_up(share.sequence for share in work.shares)
        if not is_enough and self.cache.drop_free() == 0 and not self._scheduler.give_way():
            latest = max(work.shares, key=lambda share: share.sequence.arrived)
            self._fail(latest.sequence, errors.ServerFault(f"Context size has been exceeded. ({error.message})"))
        work.shares.clear()

    def _lose(self, work: Work, error: errors.DecodeError) -> None:
        """The batch broke, and parts of it may be in memory: its sequences fail and their slots are emptied."""
        for share in work.shares:
            self._fail(share.sequence, errors.ServerFault(f"decode failed: {error.message}"), forget=True)
        work.shares.clear()

    def _update(self, work: Work, verified: dict[Sequence, Verification], now: float) -> None:
        """Move every sequence of the batch on by what was computed."""
        for share in work.shares:
            sequence = share.sequence
            if sequence.state is State.ENDED:  # its grammar could not go on
                continue
            if sequence.is_prefilling:
                self._reporter.progress(sequence, now)
            if share.prompt_rows:
                self._reporter.prompt_probs(sequence, self._likelihoods.of_prompt(share))
            if share.rows:
                self._advance(sequence, verified.get(sequence), share.rows, now)
            elif share.stop == len(sequence.cells):
                self._start(sequence, now)
                self._finish(sequence, StopType.LIMIT)

    def _start(self, sequence: Sequence, now: float) -> None:
        sequence.first_token = now
        self._reporter.started(sequence, now)

    def _advance(self, sequence: Sequence, verified: Verification | None, rows: range, now: float) -> None:
        """Take the tokens that were sampled from `rows`, if any, and then the tokens that the grammar forces."""
        tokens, is_accepted = ([], False) if verified is None else (verified.tokens, verified.is_accepted)
        if sequence.n_generated == 0:
            self._start(sequence, now)
        if verified is not None and verified.draft:
            self._drafts.verified(sequence, verified.draft, tokens)
        try:
            for token, row in zip(tokens, rows, strict=False):
                if token < 0:
                    # Attention gives cells that nobody holds the weight 0, but 0 times NaN is NaN: until the memory is
                    # wiped, whoever gets this cell next would be spoilt.
                    self._has_nan = True
                    self._fail(sequence, sequence.no_token(), forget=True)
                    return
                self._take(sequence, token, row, now, is_accepted=is_accepted)
                if sequence.state is State.ENDED:
                    return
            if sequence.drafts:
                self._drafts.take_back(sequence)
            if sequence.is_led and not (tokens and sequence.is_beside):
                self._follow(sequence, now, n_taken=len(tokens))
        except errors.RequestError as error:
            self._fail(sequence, error)

    def _follow(self, sequence: Sequence, now: float, *, n_taken: int) -> None:
        """Take the tokens that are forced, behind `n_taken` other tokens of this step.

        Tokens beyond MAX_FORCED, or beyond a speed limit, wait for the next step, so that every step ends.
        """
        assert sequence.sampler is not None
        limit = sequence.rate_limit
        most = MAX_FORCED if limit is None else min(MAX_FORCED, limit.n_at_once - n_taken)
        tokens = sequence.forced(most)
        if tokens and not self._take_all(sequence, tokens, now):
            for token in tokens:
                sequence.sampler.accept(token)
                self._take(sequence, token, -1, now)
                if sequence.state is State.ENDED:
                    return
        if sequence.constraint is not None and sequence.constraint.is_complete:
            self._reporter.said(sequence, sequence.detokenizer.flush())
            self._finish(sequence, StopType.EOS)
        else:
            sequence.prepare_mask()

    def _take_all(self, sequence: Sequence, tokens: Seq[int], now: float) -> bool:
        """Say forced tokens in one piece, where none of them ends the sequence. Else nothing has changed."""
        piece = sequence.say_all(tokens, self._runner, self.config.n_ctx)
        if piece is None:
            return False
        self._reporter.generated(sequence, now, len(tokens))
        self._reporter.said(sequence, piece)
        if sequence.constraint is not None:
            sequence.constraint.accept_all(tokens)
        return True

    def _take(self, sequence: Sequence, token: int, row: int, now: float, *, is_accepted: bool = False) -> None:
        """Say a token, and end the sequence if the token ends it (order of checks: docs/api.md, How a text ends)."""
        sequence.say(token)
        self._reporter.generated(sequence, now)
        if sequence.params.n_probs:
            sequence.probs.append(self._likelihoods.of(sequence, token, row))
        if sequence.is_stopped_by(token):
            self._reporter.said(sequence, sequence.detokenizer.flush(token))
            self._finish(sequence, StopType.WORD, self._runner.piece(token, True).decode("utf-8", "replace"))
            return
        said = self._runner.piece(token, sequence.params.special)
        piece = sequence.detokenizer.push(token, said)
        if piece is not None:
            self._reporter.said(sequence, piece)
            if piece.is_cut:
                self._finish(sequence, StopType.LIMIT)
                return
            if piece.stop_word is not None:
                self._finish(sequence, StopType.WORD, piece.stop_word)
                return
        stop_type = sequence.stop_type(said, self.config.n_ctx, may_shift=self.context_shift)
        if self._runner.is_eog(token):
            stop_type = StopType.EOS
        if stop_type is not None:
            self._reporter.said(sequence, sequence.detokenizer.flush())
            self._finish(sequence, stop_type)
            return
        sequence.move_on(token, is_accepted=is_accepted, may_wait=row >= 0 and not sequence.drafts)

    def _finish(self, sequence: Sequence, stop_type: StopType, word: str = "") -> None:
        if sequence.drafts:
            self._drafts.take_back(sequence)
        self._reporter.finished(sequence, stop_type, word)
        self._end(sequence)

    def _fail(self, sequence: Sequence, error: errors.LlamaboxError, *, forget: bool = False) -> None:
        if sequence.drafts and not forget:
            self._drafts.take_back(sequence)
        self._reporter.failed(sequence, error)
        self._end(sequence, forget=forget, has_failed=True)

    def _end(self, sequence: Sequence, *, forget: bool = False, has_failed: bool = False) -> None:
        self._remove(sequence, forget=forget, has_failed=has_failed)
        siblings = self._requests[sequence.request_id]
        if all(sibling.state is State.ENDED for sibling in siblings):
            del self._requests[sequence.request_id]
            self._scheduler.chunks.let_go(sequence.request_id)

    def _remove(self, sequence: Sequence, *, forget: bool = False, has_failed: bool = False) -> None:
        self._scheduler.remove(sequence, forget=forget)
        self._drafts.forget(sequence, has_failed=has_failed)
