"""The batching loop: schedule → execute → update."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from llamabox import errors
from llamabox.engine.drafting.drafter import Drafter, Wish
from llamabox.engine.events import Activity, StepResult, StepTimes, StopType
from llamabox.engine.grammar import Constraint, TokenMask
from llamabox.engine.kv.copy_time import CopyTime
from llamabox.engine.kv.kv_cache import KVCache
from llamabox.engine.kv.slots import Slots
from llamabox.engine.reporter import Reporter
from llamabox.engine.request import FILL_CONTEXT, RANDOM_SEED, Media, Request, n_cells, prompt_tokens
from llamabox.engine.sampling import choice_seed
from llamabox.engine.scheduling.misses import explain
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.scheduler import MAX_FORCED, Scheduler, Work
from llamabox.engine.seams import Ask, Runner, Sampler
from llamabox.engine.sequence import Sequence, State

logger = logging.getLogger(__name__)


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


class Engine:
    """Generates for many requests at once. Single-threaded: every method is called on one and the same thread.

    For any interleaving of requests each sequence's tokens equal those it would have got alone.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        drafter: Drafter | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        assert runner.facts.n_batch >= config.n_slots, "every slot may decode in one step"
        self._runner = runner
        self.config = config
        self._clock = clock
        self._pacing = Pacing(factor=config.gap_factor)
        self._requests: dict[str, list[Sequence]] = {}
        self._has_room = True  # for drafts: the last batch found some
        self._has_nan = False  # in the memory, maybe: it is wiped as soon as nobody runs
        self._resting_until: float | None = None  # nobody is due before that
        self._reporter = Reporter(runner)
        self.cache = KVCache(runner.memory, config.n_slots, config.n_ctx, config.host_budget, CopyTime(clock))
        self.slots = Slots(self.cache, lambda: self.running)
        self.context_shift = config.context_shift and self.cache.can_shift
        self._scheduler = Scheduler(
            self.cache,
            self._pacing,
            runner.facts,
            cont_batching=config.cont_batching,
            slot_similarity=config.slot_similarity,
            on_start=self._explain if logger.isEnabledFor(logging.DEBUG) else None,
        )
        self._drafter = drafter if self.cache.can_truncate and self._scheduler.may_draft else None

    @property
    def is_idle(self) -> bool:
        return self._scheduler.is_idle and self._reporter.is_empty

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot; read only."""
        return self._scheduler.running

    @property
    def n_waiting(self) -> int:
        return self._scheduler.n_waiting

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ContextExceeded or InvalidRequest, and then nothing was queued."""
        self._check(request)
        if not n_cells(request.prompt):
            self._reporter.nothing(request)
            return
        seed = request.params.sampling.seed
        if seed == RANDOM_SEED:
            seed = secrets.randbelow(RANDOM_SEED)
        now = self._clock()
        sequences = [
            Sequence(request, index, seed=choice_seed(seed, index), arrived=now) for index in range(request.params.n)
        ]
        self._requests[request.request_id] = sequences
        for sequence in sequences:
            self._scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """Forget a request and free its slots at once; it gets no further event. Unknown ids are ignored."""
        self._reporter.forget(request_id)
        for sequence in self._requests.pop(request_id, ()):
            if sequence.state is not State.ENDED:
                self._remove(sequence)

    def step(self) -> StepResult:
        """Do one step. With nothing to do its result has no event."""
        self._wipe_nan()  # an abort may have ended the last one that ran
        times = None
        begun = self._clock()
        work = self._plan(begun)
        if self._reporter.is_empty:  # else what there is to tell does not wait for the batch: it is planned again
            if work.batch:
                times = self._compute(work, begun)
                self._wipe_nan()
            else:
                assert self._resting_until is not None or self._scheduler.is_idle, "a step that makes no progress"
        return StepResult(self._reporter.take(), self.activity(), times)

    def _compute(self, work: Work, begun: float) -> StepTimes:
        """Run the planned step. `begun` is when planning it started, in clock seconds."""
        planned = self._clock()
        self._execute(work)
        computed = self._clock()
        tokens = self._sample(work)
        sampled = self._clock()
        self._update(work, tokens, sampled)
        updated = self._clock()
        if work.shares:  # else it could not be computed
            # What is taken after the sampling, by grammars without it, is part of everybody's gap as well.
            self._pacing.observe(
                n_decode=work.n_decode,
                n_prefill=work.n_prefill,
                n_forced=work.n_forced,
                seconds=updated - planned,
            )
        return StepTimes(planned - begun, computed - planned, sampled - computed, updated - sampled)

    def rest(self) -> float:
        """Seconds for which a step would compute nothing, unless something is submitted or aborted meanwhile.

        Not 0 while all that run keep to a speed limit, and the last step found none of them due.
        """
        return 0.0 if self._resting_until is None else max(0.0, self._resting_until - self._clock())

    def activity(self) -> Activity:
        """A snapshot."""
        done = self._reporter.done
        done.n_resident, n_most = self.cache.usage()
        done.n_tokens_max = max(done.n_tokens_max, n_most)
        done.n_processing = len(self._scheduler.running)
        done.n_waiting = self._scheduler.n_waiting
        return done.snapshot()

    def check_integrity(self) -> list[str]:
        """Differences between the ledger and the native memory, and slots that leaked; empty when all is well."""
        problems = self.cache.check_integrity()
        held = {sequence.slot.slot_id for sequence in self.running if sequence.slot is not None}
        problems += [
            f"slot {slot.slot_id}: busy without a sequence"
            for slot in self.cache.slots
            if slot.is_busy and slot.slot_id not in held
        ]
        return problems

    def _wipe_nan(self) -> None:
        if self._has_nan and not self.running:
            self.cache.wipe()
            self._has_nan = False

    def _check(self, request: Request) -> None:
        assert request.request_id not in self._requests
        n_prompt, n_ctx = n_cells(request.prompt), self.config.n_ctx
        if n_prompt >= n_ctx:
            raise errors.ContextExceeded(n_prompt_tokens=n_prompt, n_ctx=n_ctx)
        for segment in request.prompt:
            if isinstance(segment, Media):
                self._check_media(segment)
        if not 1 <= request.params.n <= self.config.n_slots:
            raise errors.InvalidRequest(
                f"Field 'n': must be from 1 to {self.config.n_slots}, the number of slots", field="n"
            )
        if request.params.id_slot >= self.config.n_slots:
            raise errors.InvalidRequest(
                f"Field 'id_slot': must be -1 or from 0 to {self.config.n_slots - 1}", field="id_slot"
            )

    def _check_media(self, media: Media) -> None:
        facts = self._runner.facts
        if not facts.takes_media:
            raise errors.InvalidRequest("Field 'prompt': this model takes no images or sound", field="prompt")
        n_most = min(facts.n_ubatch, facts.n_batch)
        if not media.is_causal and media.n_cells > n_most:  # libllama would end the process
            raise errors.InvalidRequest(
                f"Field 'prompt': an image of {media.n_cells} tokens must be computed at once, and this server "
                f"computes at most {n_most} (--ubatch-size)",
                field="prompt",
            )

    def _plan(self, now: float) -> Work:
        """A step whose sequences are all able to run it; those that are not have failed."""
        if self._drafter is not None and self._has_room:
            self._draft(self._drafter)
        while True:
            work = self._scheduler.schedule(now)
            for sequence in work.stuck:
                self._fail(sequence, errors.ServerFault("Context size has been exceeded."), forget=True)
            if self._prepare(work.admitted, now):
                self._resting_until = None if work.batch else work.next_due
                return work

    def _prepare(self, admitted: list[Sequence], now: float) -> bool:
        """Give each admitted sequence its sampler. False when libllama refused one, which then failed alone."""
        ready = True
        for sequence in admitted:
            sequence.admitted = now
            try:
                sequence.sampler = self._new_sampler(sequence)
                if sequence.request.grammar is not None:
                    sequence.constraint = sequence.request.grammar.start()
                    self._prepare_mask(sequence, sequence.constraint)
                self._reporter.admitted(sequence, now, self._runner.facts.n_ubatch)
            except errors.RequestError as error:
                self._fail(sequence, error)
                ready = False
        return ready

    def _draft(self, drafter: Drafter) -> None:
        """Get drafts for those that could use some and have none yet."""
        able = [(sequence, n_most) for sequence in self.running if (n_most := self._n_draft(sequence)) > 0]
        drafts = drafter.propose(
            [Wish(sequence.key, sequence.cells, sequence.n_generated, n_most) for sequence, n_most in able]
        )
        for (sequence, n_most), draft in zip(able, drafts, strict=True):
            sequence.drafts = draft[:n_most]

    def _n_draft(self, sequence: Sequence) -> int:
        """Most tokens worth drafting for a sequence now: each is a row that the next step might sample.

        What a grammar allows behind a draft, and what the samplers leave of it (post_sampling_probs), would have to be
        known before the step: such sequences go without.
        """
        if sequence.is_prefilling or sequence.drafts or sequence.n_pending != 1 or not sequence.may_draft:
            return 0
        if sequence.constraint is not None or sequence.tells_distribution:
            return 0
        n_most = self.config.n_ctx - 2 - sequence.n_computed
        if sequence.params.n_predict > 0:
            n_most = min(n_most, sequence.params.n_predict - sequence.n_generated - 1)
        if sequence.rate_limit is not None:
            n_most = min(n_most, sequence.rate_limit.n_at_once - 1)
        return n_most

    def _explain(self, sequence: Sequence) -> None:
        why = explain(sequence, self.cache.slots, lambda token: self._runner.piece(token, True))
        logger.debug("%s %s", sequence.request_id, why)

    def _new_sampler(self, sequence: Sequence) -> Sampler:
        request, n_ctx = sequence.request, self.config.n_ctx
        if request.samplers is not None:
            return request.samplers.start(sequence.seed)
        tokens = prompt_tokens(request.prompt)
        return self._runner.sampler_source(request.params.sampling, tokens, n_ctx).start(sequence.seed)

    def _execute(self, work: Work) -> None:
        """Run the batch. Without shares afterwards, it could not be computed."""
        try:
            self._runner.execute(work.batch)
        except errors.NoRoom as error:
            self._shed(work, error)
            return
        except errors.DecodeError as error:
            self._lose(work, error)
            return
        self._has_room = True
        self.cache.carried_out()
        self._reporter.done.n_decode += 1
        self._reporter.done.n_busy += len(work.shares)
        for share in work.shares:
            sequence = share.sequence
            assert sequence.slot is not None
            self.cache.computed(sequence.slot, sequence.cells, share.stop, sequence.drafts)

    def _sample(self, work: Work) -> dict[Sequence, list[int]]:
        """Tokens for each sequence of which all is computed, but for those whose grammar leaves no choice."""
        sequences: list[Sequence] = []
        asks: list[Ask] = []
        for share in work.shares:
            sequence, sampler = share.sequence, share.sequence.sampler
            if not share.rows or sampler is None:
                continue
            masks: tuple[TokenMask, ...] = ()
            if sequence.constraint is not None:
                try:
                    if _forced(sequence, 1):
                        continue
                    mask = sequence.constraint.mask()
                    if sequence.constraint.is_complete:
                        continue
                except errors.RequestError as error:
                    self._fail(sequence, error)
                    continue
                masks = (mask,)
            if sequence.tells_distribution:
                sequence.distribution = self._runner.distribution(share.rows[0], sampler, masks[0] if masks else None)
            sequences.append(sequence)
            asks.append(Ask(share.rows, sampler, masks, sequence.drafts[: len(share.rows) - 1]))
        return dict(zip(sequences, self._runner.sample(asks), strict=True))

    def _shed(self, work: Work, error: errors.NoRoom) -> None:
        """No room, nothing computed: give up drafts, or else what is only cached, or else the latest comer."""
        drafting = [share.sequence for share in work.shares if share.sequence.drafts]
        for sequence in drafting:
            sequence.drafts = []
        self._has_room = not drafting
        if not drafting and self.cache.drop_free() == 0:
            latest = max(work.shares, key=lambda share: share.sequence.arrived)
            self._fail(latest.sequence, errors.ServerFault(f"Context size has been exceeded. ({error.message})"))
        work.shares.clear()

    def _lose(self, work: Work, error: errors.DecodeError) -> None:
        """The batch broke and parts of it may be in memory: its sequences fail, their slots start afresh."""
        for share in work.shares:
            self._fail(share.sequence, errors.ServerFault(f"decode failed: {error.message}"), forget=True)
        work.shares.clear()

    def _update(self, work: Work, tokens: dict[Sequence, list[int]], now: float) -> None:
        """Move every sequence of the batch on by what was computed."""
        for share in work.shares:
            sequence = share.sequence
            if sequence.state is State.ENDED:  # its grammar could not go on
                continue
            if sequence.is_prefilling:
                self._reporter.progress(sequence, now)
            if share.rows:
                self._advance(sequence, tokens.get(sequence, []), share.rows, now)
            elif share.stop == len(sequence.cells):
                self._start(sequence, now)
                self._finish(sequence, StopType.LIMIT)

    def _start(self, sequence: Sequence, now: float) -> None:
        sequence.first_token = now
        self._reporter.started(sequence, now)

    def _advance(self, sequence: Sequence, tokens: list[int], rows: range, now: float) -> None:
        """Take the tokens sampled from `rows`, none where the grammar left no choice, and what the grammar forces."""
        if sequence.n_generated == 0:
            self._start(sequence, now)
        if self._drafter is not None and len(rows) > 1:
            self._drafter.accepted(sequence.key, len(rows) - 1, len(tokens) - 1)
        try:
            for token, row in zip(tokens, rows, strict=False):
                if token < 0:
                    # Attention multiplies what nobody holds any more by 0, which leaves a NaN a NaN: in whoever's cells
                    # come next.
                    self._has_nan = True
                    self._fail(sequence, _no_token(sequence), forget=True)
                    return
                self._take(sequence, token, row, now)
                if sequence.state is State.ENDED:
                    return
            if sequence.drafts:
                self._take_back(sequence)
            if sequence.constraint is not None:
                self._follow(sequence, sequence.constraint, now, n_taken=len(tokens))
        except errors.RequestError as error:
            self._fail(sequence, error)

    def _take_back(self, sequence: Sequence) -> None:
        """Forget the drafts, and the cells of those that did not come."""
        sequence.drafts = []
        n_cells = len(sequence.cells) - 1  # the last token is not computed
        if sequence.n_computed > n_cells:
            assert sequence.slot is not None
            sequence.may_draft = self.cache.truncate(sequence.slot, n_cells) == n_cells

    def _follow(self, sequence: Sequence, constraint: Constraint, now: float, *, n_taken: int) -> None:
        """Take what a grammar forces, behind `n_taken` tokens of this step.

        What is beyond MAX_FORCED, or a speed limit, waits for the next step, so that every step ends.
        """
        assert sequence.sampler is not None
        limit = sequence.rate_limit
        most = MAX_FORCED if limit is None else min(MAX_FORCED, limit.n_at_once - n_taken)
        for token in _forced(sequence, most):
            sequence.sampler.accept(token)
            self._take(sequence, token, -1, now)
            if sequence.constraint is None:
                return
        if constraint.is_complete:
            self._reporter.said(sequence, sequence.detokenizer.flush())
            self._finish(sequence, StopType.EOS)
        else:
            self._prepare_mask(sequence, constraint)

    def _prepare_mask(self, sequence: Sequence, constraint: Constraint) -> None:
        """Begin to compute the mask of the next row, unless the grammar leaves no choice there."""
        if not _forced(sequence, 1):
            constraint.prepare()

    def _take(self, sequence: Sequence, token: int, row: int, now: float) -> None:
        """Say a token, and end the sequence where it ends (order of checks: docs/api.md, How a text ends)."""
        sequence.cells.append(token)
        sequence.n_generated += 1
        self._reporter.generated(sequence, now)
        if sequence.params.n_probs:
            sequence.probs.append(self._reporter.probs(sequence, token, row))
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
        stop_type = self._stop_type(sequence, token, said)
        if stop_type is not None:
            self._reporter.said(sequence, sequence.detokenizer.flush())
            self._finish(sequence, stop_type)
        elif sequence.constraint is not None:
            sequence.constraint.accept(token)

    def _stop_type(self, sequence: Sequence, token: int, said: bytes) -> StopType | None:
        at_wall = len(sequence.cells) >= self.config.n_ctx and not self._may_shift(sequence)
        sequence.truncated = sequence.truncated or at_wall
        if self._runner.is_eog(token):
            return StopType.EOS
        if at_wall or sequence.n_generated == sequence.params.n_predict:
            return StopType.LIMIT
        t_max = sequence.params.t_max_predict_ms
        if t_max > 0 and b"\n" in said and sequence.timings.predicted_ms > t_max:
            return StopType.LIMIT
        return None

    def _may_shift(self, sequence: Sequence) -> bool:
        return self.context_shift and sequence.params.n_predict != FILL_CONTEXT

    def _finish(self, sequence: Sequence, stop_type: StopType, word: str = "") -> None:
        if sequence.drafts:
            self._take_back(sequence)
        self._reporter.finished(sequence, stop_type, word)
        self._end(sequence)

    def _fail(self, sequence: Sequence, error: errors.LlamaboxError, *, forget: bool = False) -> None:
        if sequence.drafts and not forget:
            self._take_back(sequence)
        self._reporter.failed(sequence, error)
        self._end(sequence, forget=forget)

    def _end(self, sequence: Sequence, *, forget: bool = False) -> None:
        self._remove(sequence, forget=forget)
        siblings = self._requests[sequence.request_id]
        if all(sibling.state is State.ENDED for sibling in siblings):
            del self._requests[sequence.request_id]

    def _remove(self, sequence: Sequence, *, forget: bool = False) -> None:
        self._scheduler.remove(sequence, forget=forget)
        if self._drafter is not None:
            self._drafter.forget(sequence.key)


def _forced(sequence: Sequence, n_most: int) -> list[int]:
    """Up to `n_most` tokens that its grammar forces.

    None where log-probabilities are asked for: only a computed row tells them.
    """
    if sequence.constraint is None or sequence.params.n_probs:
        return []
    return sequence.constraint.forced(n_most)


def _no_token(sequence: Sequence) -> errors.LlamaboxError:
    if sequence.constraint is not None:
        return errors.ServerFault("nothing that the grammar allows can be chosen: the model's output is not a number")
    return errors.ServerFault("the model's output is not a number (NaN logits)")
