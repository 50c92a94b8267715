"""One generation: its tokens, how far they are computed, and what it has said."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Seq
from enum import Enum, auto

from llamabox.engine.events import StopType, Timings, TokenProbs
from llamabox.engine.grammar import Constraint, TokenMask
from llamabox.engine.kv.history import History
from llamabox.engine.kv.slot import Slot, SlotState
from llamabox.engine.logprobs import Distribution
from llamabox.engine.rate import RateLimit
from llamabox.engine.request import FILL_CONTEXT, GenerationParams, Request, prompt_tokens
from llamabox.engine.sampling import choice_seed
from llamabox.engine.seams import Runner, Sampler
from llamabox.engine.text.detokenizer import Detokenizer, Piece
from llamabox.engine.text.thought import ThoughtLimit
from llamabox.errors import RequestError, ServerFault

TRIED_EVERY = 4
"""Of tokens that a grammar refuses in a row, so many-th ones are sampled without a mask first."""


class State(Enum):
    """Whether a sequence waits for a slot, has one, or has ended."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


class Sequence:
    """The `index`-th generation of a request. Owned by the engine's thread.

    Its cells are the prompt and what was generated, less what a context shift dropped; the slot's ledger says how many
    of them are computed. There are no phases: `n_pending` cells want computing, drafts behind the others, and the last
    one that is no draft yields the next token.

    What its request says of it for good is read several times at each token, and stands in attributes.
    """

    def __init__(
        self, request: Request, index: int, *, seed: int, arrived: float, first: Sequence | None = None
    ) -> None:
        """`first` is the first of its request's sequences; None: this is it."""
        params = request.params
        self.request = request
        self.request_id = request.request_id
        self.params: GenerationParams = params
        self.index = index
        self.key = request.request_id, index
        """The name that a drafter knows it by."""
        self._first = first
        self.tells_prompt = params.n_prompt_probs > 0 and first is None
        """Whether it tells each token of the prompt with its log-probability: for all sequences of its request."""
        self.tells_distribution = params.post_sampling_probs and params.n_probs > 0
        self._ends = frozenset(params.stop_tokens)
        self._n_least = params.n_least
        self.may_be_forced = not params.n_probs
        """Whether tokens that are forced come without a row of their own. Only a row tells log-probabilities."""
        self.seed = seed
        self.cells = History.of(request.prompt, request.params.lora)
        self.n_prompt = len(self.cells)
        self.n_cached = 0  # prompt cells that were resident when it got its slot
        self.said = array("i")  # the tokens it has generated, those as well that a context shift has dropped
        self.halts: list[int] = []  # numbers of computed cells, ascending, at which its slot gets a checkpoint
        self.stand: int | None = None  # cells that it may compute before its grammar is there; None: all
        self.n_overtaken = 0  # steps in which a later prompt was served before this one
        self.drafts: list[int] = []  # tokens that may come behind its cells
        self.places: list[TokenMask | None] = []  # of these under a grammar that is asked about each (grammar.walk)
        self._free_at = -1  # the number of tokens said behind which its grammar was found to force none
        self._may_check = False  # see is_checked
        self.is_led = False  # by a grammar, or by a limit of its thoughts
        self.is_beside = False  # its grammar moves on by the token said last beside the next decode
        self.n_refused = 0  # tokens in a row that its grammar refused, or was thought to
        self.may_draft = True  # the memory has not refused to take a draft back
        self.truncated = False
        self.state = State.WAITING
        self.slot: Slot | None = None
        self.saved: SlotState | None = None  # what its slot held, where that cannot be computed anew
        self.n_progress = -1  # prompt cells of which it was told that they are there
        self.n_prompt_told = 0  # prompt tokens whose log-probabilities were told
        self.sampler: Sampler | None = None
        self.constraint: Constraint | None = None
        self.thought: ThoughtLimit | None = None
        self.detokenizer = Detokenizer(request.stop, params.n_indent, params.marks, n_least=params.n_least)
        self.probs: list[TokenProbs] = []  # of tokens not yet reported
        self.distribution: Distribution | None = None  # of the token that this step draws, if it is to be told
        self.timings = Timings()
        limit = params.tokens_per_second
        self.rate_limit = RateLimit(limit) if limit else None
        self.arrived = arrived
        self.admitted = arrived  # until it gets a slot
        self.first_token = arrived

    @property
    def id_slot(self) -> int:
        """The slot it insists on, -1 for any. Only the first of n choices insists, or they could not run together."""
        return self.params.id_slot if self.index == 0 else -1

    @property
    def is_early(self) -> bool:
        """Whether the first sequence of its request has yet to tell the prompt, with which its own text begins."""
        first = self._first
        if first is None or not self.params.n_prompt_probs:
            return False
        return first.n_generated == 0 and first.state is not State.ENDED

    @property
    def may_reuse(self) -> bool:
        """Whether it may start from resident cells. Only a row that is computed tells how likely the next token was."""
        return self.params.cache_prompt and not self.tells_prompt

    @property
    def n_generated(self) -> int:
        return len(self.said)

    @property
    def n_computed(self) -> int:
        assert self.slot is not None
        return len(self.slot.resident)

    @property
    def n_owed(self) -> int:
        """Cells that must be computed before the next token. Negative while drafts are computed, but not verified."""
        assert self.slot is not None
        return len(self.cells) - len(self.slot.resident)

    @property
    def n_pending(self) -> int:
        """Cells that want computing, drafts included."""
        return len(self.cells) + len(self.drafts) - self.n_computed

    @property
    def n_stretch(self) -> int:
        """Pending cells that may be in one run: text up to the next media chunk or halt, or the rest of a chunk."""
        end = self.cells.stretch_end(self.n_computed)
        if self.halts and self.halts[0] > self.n_computed:
            end = min(end, self.halts[0])
        if self.stand is not None:
            end = min(end, self.stand)
        return end - self.n_computed

    @property
    def awaits_grammar(self) -> bool:
        """Whether its grammar is not there, and it has not begun to say anything."""
        grammar = self.request.grammar
        return self.sampler is None and grammar is not None and not grammar.is_ready

    @property
    def tells_early(self) -> bool:
        """Whether it tells of its prompt while that is computed: only where it is certain that it will be answered."""
        return self.params.return_progress or self.tells_prompt

    @property
    def is_held(self) -> bool:
        """Whether it has computed all that it may before its grammar is there."""
        return self.stand is not None and self.n_computed >= self.stand

    @property
    def is_media(self) -> bool:
        """Whether the next cells are of a media chunk, which no token shares a batch with."""
        return not self.cells.is_text and self.cells.media_at(self.n_computed) is not None

    @property
    def is_exclusive(self) -> bool:
        """Whether the next cells are a media chunk that must be computed whole, in a batch of its own."""
        return not self.cells.is_text and self.cells.is_exclusive(self.n_computed)

    @property
    def is_prefilling(self) -> bool:
        """Running, with nothing generated yet."""
        return not self.said and self.slot is not None

    @property
    def n_early(self) -> int:
        """How many of its next tokens may not end it."""
        return max(0, self._n_least - len(self.said)) if self._n_least else 0

    def is_stopped_by(self, token: int) -> bool:
        """Whether the `token` that it said last is one that the request wants to end at."""
        return token in self.params.stop_tokens and len(self.said) > self.params.n_least

    def takes_grammar(self, now: float) -> bool:
        """Whether a grammar is there that it had a slot before: then nothing holds it any more. Once in its life."""
        if self.stand is None or self.awaits_grammar:
            return False
        if self.stand == self.n_cached:  # it has computed nothing
            self.admitted = now
        self.stand = None
        return True

    def begin(self, runner: Runner, n_ctx: int) -> None:
        """It has a slot of `n_ctx` cells and its grammar is ready. Sampler, grammar and limit of thoughts begin.

        Raises a RequestError.
        """
        source = self.request.samplers
        if source is None:
            source = runner.sampler_source(self.params.sampling, prompt_tokens(self.request.prompt), n_ctx)
        self.sampler = source.start(self.seed)
        self._may_check = self.may_be_forced and self.sampler.takes_highest and not runner.facts.has_spare_core
        if self.params.thought is not None:
            self.thought = ThoughtLimit(self.params.thought, self.params.marks, runner.piece)
        self.is_led = self.thought is not None or self.request.grammar is not None
        if self.request.grammar is not None:
            self.constraint = self.request.grammar.start()
            self.prepare_mask()

    def say(self, token: int) -> None:
        """Append a generated token."""
        self.cells.append(token)
        self.said.append(token)

    def move_on(self, token: int, *, is_accepted: bool, may_wait: bool) -> None:
        """Let its thought and its grammar know the token that it said last.

        is_accepted: its grammar has moved on by it. may_wait: its next token is sampled in another step.
        """
        self.is_beside = False
        if self.thought is not None:
            self.thought.take(token)
        if self.constraint is None or is_accepted:
            return
        if may_wait and self.thought is None and not self.is_checked and self.constraint.is_free_behind(token):
            self.is_beside = True
            self.constraint.accept_beside(token)
        else:
            self.constraint.accept(token)

    def say_all(self, tokens: Seq[int], runner: Runner, n_ctx: int) -> Piece | None:
        """Append tokens that were not sampled, at least two, and that do not end it. What they say, in one piece.

        None where one of them may end it, or each is told: nothing has changed then, and each must be said by itself.
        """
        params, n_said = self.params, len(self.said) + len(tokens)
        is_at_limit = 0 <= params.n_predict <= n_said or len(self.cells) + len(tokens) >= n_ctx
        if is_at_limit or len(tokens) < 2 or params.by_token or params.t_max_predict_ms > 0:
            return None
        if not self._ends.isdisjoint(tokens) or any(map(runner.is_eog, tokens)):
            return None
        piece = self.detokenizer.push_all(tokens, [runner.piece(token, params.special) for token in tokens])
        if piece is None:
            return None
        self.cells.extend(tokens)
        self.said.extend(tokens)
        assert self.sampler is not None
        self.sampler.accept_all(tokens)
        if self.thought is not None:
            for token in tokens:
                self.thought.take(token)
        return piece

    def stop_type(self, said: bytes, n_ctx: int, *, may_shift: bool) -> StopType | None:
        """Why it ends behind a token with the text `said`, unless that is one that ends texts. None: it goes on.

        `n_ctx` cells are all that it may have, unless the engine `may_shift`.
        """
        params, at_wall = self.params, False
        if len(self.cells) >= n_ctx:
            at_wall = not (may_shift and params.may_shift and params.n_predict != FILL_CONTEXT)
            self.truncated = self.truncated or at_wall
        if at_wall or len(self.said) == params.n_predict:
            return StopType.LIMIT
        is_late = 0 < params.t_max_predict_ms < self.timings.predicted_ms
        return StopType.LIMIT if is_late and b"\n" in said else None

    def forced(self, n_most: int) -> Seq[int]:
        """Up to `n_most` tokens that come without being sampled: the end of its thought, or what its grammar forces."""
        if not self.may_be_forced:
            return ()
        if self.thought is not None and (ending := self.thought_end()):
            return ending[:n_most]
        if self.constraint is None or self._free_at == len(self.said):
            return ()
        tokens = self.constraint.forced(n_most)
        if not tokens and n_most > 0:
            self._free_at = len(self.said)
        return tokens

    def thought_end(self) -> Seq[int]:
        """The tokens with which a thought that may have no more of them ends here; none where it need not.

        Where its grammar does not allow them, the thought goes on.
        """
        if self.thought is None or not (ending := self.thought.forced()):
            return ()
        if self.constraint is not None and self.constraint.n_allowed(ending) < len(ending):
            self.thought.give_up()
            return ()
        return ending

    def n_allowed(self, draft: Seq[int]) -> int:
        """How many tokens of a draft may come; none where the next one is forced, which comes without a draft."""
        n_most = len(draft)
        try:
            if self.thought is not None:
                n_most = 0 if self.thought_end() else self.thought.n_free(draft)
            if self.constraint is None:
                return n_most
            return 0 if self.forced(1) else self.constraint.n_allowed(draft[:n_most])
        except RequestError:
            return 0  # it is told when the step is sampled

    @property
    def is_checked(self) -> bool:
        """Whether its tokens are sampled without masks and then shown to its grammar: a mask is seldom needed then.

        Not where the grammar's forced tokens are sampled, of which it allows no other spelling, nor where the text may
        not end yet. Nor where a core is spare for masks: all that moves the grammar on is done there as well, in which
        a step would take longer than in sampling with masks.
        """
        return self._may_check and not (self._n_least and self.n_early)

    @property
    def is_likely_refused(self) -> bool:
        """Whether a token that was sampled without a mask would be refused once more. Now and then it is tried."""
        return self.n_refused > 1 and self.n_refused % TRIED_EVERY > 0

    def choice(self) -> TokenMask | None:
        """The mask of its next token; None where its grammar forces that, or wants the end."""
        assert self.constraint is not None
        if self.may_be_forced:
            return self.constraint.choice()
        mask = self.constraint.mask()
        return None if self.constraint.is_complete else mask

    def prepare_mask(self) -> None:
        """Begin to compute the mask of the next row, unless it needs none, or its grammar leaves no choice there.

        A model whose token was refused often wants to say it again, so a mask is likely to be needed then.
        """
        if self.constraint is None or (self.is_checked and not self.n_refused):
            return
        if self.thought is not None and self.forced(1):
            return
        if self.may_be_forced:
            self.constraint.prepare_choice()
        else:
            self.constraint.prepare()

    def no_token(self) -> ServerFault:
        """The error for a row from which no token could be chosen."""
        if self.constraint is not None:
            return ServerFault("nothing that the grammar allows can be chosen: the model's output is not a number")
        return ServerFault("the model's output is not a number (NaN logits)")

    def due(self, now: float) -> float:
        """When its next token may be computed; `now` or earlier: at once."""
        if self.rate_limit is None or self.n_generated == 0:
            return now
        return self.rate_limit.due(self.n_generated, now)

    def to_drop(self, adds_bos: bool, n_ctx: int) -> tuple[int, int]:
        """How many cells a context shift keeps at the front, and how many behind them it drops.

        It keeps `n_keep` of the prompt, and BOS.
        """
        n_keep = self.params.n_keep
        n_keep = self.n_prompt if n_keep < 0 else min(n_keep + adds_bos, self.n_prompt)
        n_keep = min(n_keep, n_ctx - 4)
        n_left = self.n_computed - n_keep
        return n_keep, min(self.params.n_discard or n_left // 2, n_left)

    def step_back(self, saved: SlotState | None) -> None:
        """It has lost its slot, and waits for one again. `saved` is what it held; None: that is computed anew."""
        self.state = State.WAITING
        self.slot = self.stand = None
        self.saved = saved

    def end(self) -> None:
        """Free what it owns; idempotent. The slot is the scheduler's to release."""
        self.state = State.ENDED
        self.constraint = None
        self.saved = None
        if self.sampler is not None:
            self.sampler.close()
            self.sampler = None


def sequences_of(request: Request, seed: int, arrived: float) -> list[Sequence]:
    """The sequences of a request, of which the first draws from `seed`."""
    first = Sequence(request, 0, seed=choice_seed(seed, 0), arrived=arrived)
    others = range(1, request.params.n)
    return [first, *(Sequence(request, i, seed=choice_seed(seed, i), arrived=arrived, first=first) for i in others)]
