"""What the engine needs from the native side. Fakes of all of these stand in tests/fakes.py.

Everything here is called on the engine's thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from llamabox.engine.batch import Batch
from llamabox.engine.events import Activity
from llamabox.engine.grammar import TokenMask
from llamabox.engine.logprobs import Distribution
from llamabox.engine.request import Media, Prompt, SamplingParams
from llamabox.errors import LlamaboxError


class Memory(Protocol):
    """The KV memory, addressed by sequence id (our slot id) and half-open position ranges; -1 means open-ended."""

    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """Remove [p0, p1). False, and nothing done, where a part cannot be removed; a whole sequence always can."""

    def seq_cp(self, source: int, target: int) -> None:
        """Let the empty `target` hold all that `source` holds; in a unified pool they share the cells from then on.

        Where the source had cells taken back by `n_rollback`, and computed none since, the target gets the part that it
        had before.

        Without a pool the next decode copies all of the source's stream, as it is then, over all of the target's: until
        then `state_get` gives what was there, and `state_set` would be copied along or overwritten.
        """

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """Move [p0, p1) by `delta`, for all that share the cells. The next decode turns their keys."""

    def carry_out(self, seq_id: int) -> None:
        """Do now what waits for the next decode: a decode of one cell behind those of `seq_id`, which is then removed.

        Where parts cannot be removed, `seq_id` must be empty. After a DecodeError it may have been done or not.
        """

    def seq_detach(self, seq_id: int) -> bool:
        """Give the sequence cells of its own, with the same content. False, and the sequence empty, without room."""

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        """Bytes that `state_get` would return."""

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes | memoryview:
        """Everything the sequence holds, for `state_set`; or the part of it that cannot be cut, where `has_part`.

        It stands at the beginning of `into`, which is large enough, or in memory of its own.
        """

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        """Replace what the sequence holds by a whole, undamaged state. False, and the sequence empty, without room.

        With `part` the sequence must hold all cells of the text that the part is of, and may hold more: `seq_rm` takes
        those behind it. False, and the sequence of no use, without room.
        """

    def seq_pos_min(self, seq_id: int) -> int:
        """The lowest position held, -1 when empty. Above 0 where a sliding window has forgotten the beginning."""

    def seq_pos_max(self, seq_id: int) -> int:
        """The highest position held, -1 when empty."""

    def clear(self) -> None:
        """Forget everything, the numbers in cells that nobody holds any more as well."""

    @property
    def can_shift(self) -> bool:
        """Whether `seq_add` is possible at all."""

    @property
    def can_truncate(self) -> bool:
        """Whether `seq_rm` can take back the newest cells of a sequence. Not where cells are folded into one state."""

    @property
    def n_rollback(self) -> int:
        """How many cells `seq_rm` can take back where not `can_truncate`; 0: none.

        Only of those that a sequence's last decode computed, but for the first one; once; before any other decode; and
        where there were no more than two sequences in it: libllama moves the states of others as it computes several
        side by side, and leaves behind those that it keeps for this. Else it may say True and leave a wrong state.
        """

    @property
    def has_part(self) -> bool:
        """Whether a part of what a sequence holds cannot be cut: a recurrent state, or the cells of a sliding window.

        That part as it was after some of the cells, put back, cuts the sequence there.
        """

    @property
    def part_is_all(self) -> bool:
        """Whether that part is all that a sequence holds: it may be put into an empty one."""

    @property
    def is_unified(self) -> bool:
        """Whether sequences live in one pool and may share cells.

        Else each has a stream of its own: a copy copies data, and rows are computed together only where their sequence
        ids follow one another.
        """

    @property
    def is_near(self) -> bool:
        """Whether cells lie in this machine's own memory: a state is copied as quickly as anything there."""

    @property
    def state_is_all(self) -> bool:
        """Whether a state has all that `seq_cp` copies. Heads that draft have cells of their own, which are in none."""

    @property
    def n_pool(self) -> int:
        """Cells of the pool; 0 where each sequence has room for a whole context: a stream of its own, or one state."""

    @property
    def n_window(self) -> int:
        """Size of the sliding attention window in tokens; 0 without one."""


@dataclass(slots=True)
class Ask:
    """Tokens wanted of one sequence: from `rows` of the last batch, which follow one another.

    `draft` has a token less than there are rows. `masks` has one for each row, or is empty: all tokens may come.
    """

    rows: range
    sampler: Sampler
    masks: Seq[TokenMask] = ()
    draft: Seq[int] = ()


class Sampler(Protocol):
    """One sequence's own sampling state: chain, random numbers, penalty history."""

    @property
    def takes_highest(self) -> bool:
        """Whether it takes the highest logit of those that may come, whatever it has accepted: then what it samples
        without a mask, if the mask allows that, is what it samples with the mask."""

    def accept(self, token: int) -> None:
        """Take a token that was not sampled, of the prompt or a forced one, into the penalty history."""

    def accept_all(self, tokens: Seq[int]) -> None:
        """As `accept`, one after the other."""

    def close(self) -> None:
        """Free it; idempotent."""


class SamplerSource(Protocol):
    """Makes the samplers of a request's sequences. It is built beside the engine, and nothing in it takes long."""

    def start(self, seed: int) -> Sampler:
        """One that draws from `seed`, with the prompt in its history where that counts (penalties, DRY)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFacts:
    """What a runner is like. It stays so for the runner's life."""

    n_batch: int
    """The most rows one `execute` takes."""

    n_ubatch: int
    """Rows that are computed at once inside `execute`."""

    tile: int = 1
    """Rows of one sequence from which attention is computed in tiles (scheduling/company); 1: without tiles."""

    mixes: bool = True
    """Whether a batch may hold lone rows of sequences beside runs of several, whatever low bits come of it.

    Where not, the two are computed one after the other inside `execute`, and often by different kernels.
    """

    is_steady: bool = False
    """Whether a row comes out the same to the bit whatever else is in the batch: alone, in a run, beside others.

    Then a batch may hold lone rows beside drafts and what grammars force. Where neither this nor `mixes` holds, each
    batch has one kind only and no run may leave a lone row over (see scheduling/company): so no text depends on its
    company. Then nothing can be drafted.
    """

    takes_media: bool = False
    """Whether a batch may have media rows: never beside tokens, and of a chunk that is not causal by itself."""

    adds_bos: bool = False
    """Whether prompts begin with a BOS token, which a context shift keeps."""

    has_spare_core: bool = False
    """Whether `execute` leaves a processor to other threads: what is done beside it is done in no time."""

    marks: frozenset[int] = frozenset()
    """Tokens that stand where a message of a chat begins or ends."""

    @property
    def may_draft(self) -> bool:
        """Whether a row comes out the same behind a draft as alone, or nobody minds."""
        return self.mixes or self.is_steady


class Runner(Protocol):
    """One loaded model with its context. It never decides policy."""

    @property
    def facts(self) -> RunnerFacts:
        """What it is like."""

    @property
    def memory(self) -> Memory:
        """The KV memory that `execute` fills."""

    def sampler_source(self, params: SamplingParams, prompt: Seq[int], n_ctx: int) -> SamplerSource:
        """For the sequences of a request that brings none. Raises InvalidRequest for what libllama refuses."""

    def execute(self, batch: Batch) -> None:
        """Compute the batch with its LoRA set: one llama_decode. Raises a DecodeError.

        A device may still be at it when this returns. Until then the memory counts as filled all the same.
        """

    def wait(self) -> None:
        """Wait until the last batch is computed. What reads its rows waits by itself."""

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        """The tokens of each ask, from rows of the last batch.

        A row's token is one that its mask allows, and the sampler has accepted it. The token of the first row always
        comes, that of the next one only if the first is the draft's first, and so on: all but the last one are a
        beginning of the draft. -1 ends a list whose row is NaN or has nothing to choose from.
        """

    def logprobs(self, row: int, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
        """The log-probability of `token` in a row of the last batch, and the `n` highest as (token, logprob).

        Of the raw logits, over the whole vocabulary; the highest first, the lowest id first among equals.
        """

    def distribution(self, row: int, sampler: Sampler, mask: TokenMask | None) -> Distribution:
        """What `sample` is about to choose from. Empty for a row of NaN."""

    def piece(self, token: int, special: bool) -> bytes:
        """The bytes a token stands for."""

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation."""


class Encoder(Protocol):
    """Makes the rows of media chunks, beside the engine. What it says of a chunk changes between two steps only."""

    def take(self, request_id: str, prompt: Prompt, contents: Mapping[Media, object]) -> None:
        """From now on, and until `forget`, the chunks of this prompt may be wanted. A request may have several."""

    def want(self, key: tuple[str, int], chunks: Seq[Media]) -> None:
        """Make the rows of `chunks`, in this order, for the sequence (request_id, index).

        What it wanted before and does not name now it wants no longer. Rows stay while any sequence wants them.
        """

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to encode."""

    def is_ready(self, media: Media) -> bool:
        """Whether the rows of a chunk that is wanted are there."""

    def error(self, media: Media) -> LlamaboxError | None:
        """Why the rows of a chunk that is wanted will never come. None: they are there, or will be."""

    def forget(self, request_id: str) -> None:
        """A request is over. Unknown ids are ignored."""

    def count(self, activity: Activity) -> None:
        """Write into `activity` what it did so far."""


class Pooler(Protocol):
    """One loaded model with a context that makes vectors instead of logits.

    Where an Encoder is beside it, a batch may be rows of one media chunk, in full where that is not causal. Then any
    sequence may be computed in several batches, whose vectors are `joined`.
    """

    @property
    def n_batch(self) -> int:
        """The most rows one `execute` takes."""

    @property
    def n_sequences(self) -> int:
        """The most sequences in them."""

    @property
    def splits(self) -> bool:
        """Whether a sequence may be computed in several batches, one after the other; its last part has the vector."""

    @property
    def is_tiled(self) -> bool:
        """Whether a vector depends on the rows where its passage stands, as TiledRoom describes it."""

    @property
    def filler(self) -> int:
        """A token for rows that nobody asks for: of a sequence with the id n_sequences."""

    def execute(self, batch: Batch) -> None:
        """Compute the batch, whose sequences have ids from 0. Raises a DecodeError."""

    def vector(self, seq_id: int, rows: range) -> bytes:
        """What the last batch made of a sequence, which stood in these rows: float32. A copy."""

    def joined(self, parts: Seq[tuple[int, bytes]]) -> bytes:
        """The vector of a passage that was computed in several batches: of how many rows each was, and its `vector`."""

    def forget(self) -> None:
        """Empty the memory, if there is one: the next batch begins new sequences."""
