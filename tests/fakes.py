"""Stand-ins at the engine's seams. They know nothing of the engine's ways, and punish what libllama would punish."""

from __future__ import annotations

import ast
import copy
import hashlib
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count, takewhile
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llamabox import errors
from llamabox.engine.batch import Batch, MediaRows, Run
from llamabox.engine.drafting.drafter import Draft, Drafter, Key, Source, Wish
from llamabox.engine.drafting.price import Offer, Price, Step
from llamabox.engine.events import Activity
from llamabox.engine.grammar import Constraint, Grammar, TokenMask, walk
from llamabox.engine.logprobs import Distribution
from llamabox.engine.request import LoraSet, Media, Prompt, SamplingParams
from llamabox.engine.seams import Ask, Encoder, Memory, Pooler, Runner, RunnerFacts, Sampler, SamplerSource

EOG = 0
"""The fake vocabulary's end-of-generation token."""


def digest(*values: int) -> int:
    """A 40-bit hash, the same in every process."""
    text = ",".join(map(str, values)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=5).digest(), "big")


Said = int | tuple[Media, int]
"""What a cell says: a token, or a row of a media chunk."""


@cache
def name_of(said: Said) -> int:
    """What a cell says as one number."""
    if isinstance(said, int):
        return said
    media, row = said
    name = repr((media.key, media.n_cells, media.n_positions, media.is_causal, row)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=5).digest(), "big")


def stands_at(said: Said, position: int) -> int:
    """Where a memory puts a cell: a token at its `position`, a row of a chunk that begins there in its order.

    Under M-RoPE, here where a chunk has not as many positions as cells, all its rows stand at its first position.
    """
    if isinstance(said, int) or said[0].n_positions != said[0].n_cells:
        return position
    return position + said[1]


def goes_on_at(said: Said, stands: int) -> int:
    """Where the next token or chunk begins behind the last cell of what is `said`, or the next row of its chunk."""
    if isinstance(said, int):
        return stands + 1
    media, row = said
    first = stands - (stands_at(said, stands) - stands)
    return first + media.n_positions if row + 1 == media.n_cells else first


Content = tuple[int, int]
"""What is in a cell: a value, and the position that its key is turned to."""

STALE: Content = (-1, -1)
"""What is in a cell that was never written."""


@dataclass(eq=False)
class Cell:
    """One KV cell: a place in a stream. Its value depends on all cells it attended to when it was computed."""

    said: Said
    position: int
    behind: int  # the position of the cell before it when it was computed, -1 for none
    stream: dict[int, Content]
    place: int
    owners: set[int] = field(default_factory=set)
    shift: int = 0  # by which the next decode turns its key

    @property
    def value(self) -> int:
        return self.stream.get(self.place, STALE)[0]

    @property
    def content(self) -> int:
        """What is in it as one number: of its value and position, where nothing is put off for it."""
        return content_of(*self.stream.get(self.place, STALE))


@dataclass(frozen=True)
class Folded:
    """A recurrent state: what was computed up to a position, folded into one number."""

    value: int = 0
    position: int = -1

    def after(self, value: int, position: int) -> Folded:
        return Folded(digest(self.value, value), position)


class FakeMemory:
    """A KV pool of `n_cells` cells, with shared cells and all if it is `unified`.

    Which cells a sequence has, and their positions, changes at once. What is in them does not: without a pool a copy
    takes over the whole stream as it is when the next decode begins, and only that decode turns keys to where they
    were moved. A state is read and written at once, from and to what is there.

    `partial_removal=False` is that of a hybrid model: beside its cells a sequence has a state of all that was computed,
    which cannot be cut. With `part_is_all` its cells go with the state, as where it has none. A window keeps only the
    last `n_window` positions of a sequence.

    With `n_rollback` it keeps the states before the last cells of each sequence's last decode, and goes back to one of
    them without a look at whether it is still there.
    """

    def __init__(
        self,
        *,
        n_cells: int = 1 << 20,
        partial_removal: bool = True,
        part_is_all: bool = False,
        n_rollback: int = 0,
        can_shift: bool = True,
        n_window: int = 0,
        unified: bool = True,
    ) -> None:
        self.n_cells = n_cells
        self.partial_removal = partial_removal
        self.part_is_all = part_is_all
        self.n_rollback = n_rollback
        self._can_shift = can_shift
        self._unified = unified
        self._n_window = n_window
        self.cells: list[Cell] = []
        self._streams: dict[int, dict[int, Content]] = {}  # what was written at each place, freed ones too
        self._copies: list[tuple[int, int]] = []  # source and target, in their order; the next decode carries them out
        self.states: dict[int, Folded] = {}  # by sequence, without partial removal
        self._n_kept = n_rollback  # states that the last decode kept of each of its sequences
        self._planes: dict[int, list[Folded]] = {}  # those before them, the latest first, as far as they were kept
        self._before: dict[int, Folded] = {}  # the states of those that were taken back since they computed something

    @property
    def has_part(self) -> bool:
        return not self.partial_removal or self._n_window > 0

    @property
    def can_shift(self) -> bool:
        return self._can_shift

    @property
    def can_truncate(self) -> bool:
        return self.partial_removal

    @property
    def is_unified(self) -> bool:
        return self._unified

    @property
    def is_near(self) -> bool:
        return True

    @property
    def state_is_all(self) -> bool:
        return True

    @property
    def n_pool(self) -> int:
        return self.n_cells if self._unified else 0

    @property
    def n_window(self) -> int:
        return self._n_window

    def of(self, seq_id: int) -> list[Cell]:
        """The cells of a sequence in the order of their positions."""
        return sorted((cell for cell in self.cells if seq_id in cell.owners), key=lambda cell: cell.position)

    def contents(self, seq_id: int) -> list[int]:
        """What is in each cell of a sequence, as the next decode will find it."""
        coming = self
        if self._copies or any(cell.shift for cell in self.cells):
            coming = copy.deepcopy(self)
            coming.carry_out()
        return [cell.content for cell in coming.of(seq_id)]

    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        mine = self.of(seq_id)
        gone = [cell for cell in mine if max(p0, 0) <= cell.position and (p1 < 0 or cell.position < p1)]
        if gone and not self.partial_removal:
            if len(gone) == len(mine):
                self._forget_state(seq_id)
            elif p1 >= 0 or (
                self.states[seq_id].position >= gone[0].position and not self._roll_back(seq_id, len(gone))
            ):
                return False
        for cell in gone:
            cell.owners.discard(seq_id)
        self._sweep()
        return True

    def seq_cp(self, source: int, target: int) -> None:
        cells = self.of(source)
        assert not self.of(target), f"sequence {target} is not empty"
        if source in self.states:
            self.states[target] = replace(self._before.get(source, self.states[source]), position=cells[-1].position)
        if self._unified:
            for cell in self.of(source):
                cell.owners.add(target)
        else:
            into = self._stream(target)
            self.cells += [
                Cell(cell.said, cell.position, cell.behind, into, cell.place, {target}, cell.shift)
                for cell in self.of(source)
            ]
            self._copies.append((source, target))

    def carry_out(self, seq_id: int | None = None) -> None:
        """`seq_id`, whose stream the memory may write into as it does so: it must be able to forget that again."""
        assert seq_id is None or self.partial_removal or not self.of(seq_id), f"sequence {seq_id} is not empty"
        for source, target in self._copies:
            self._stream(target).clear()
            self._stream(target).update(self._stream(source))
        self._copies.clear()
        for cell in self.cells:
            if cell.shift:
                value, turned_to = cell.stream.get(cell.place, STALE)
                cell.stream[cell.place] = (value, turned_to + cell.shift)
                cell.shift = 0

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        assert self._can_shift
        for cell in self.of(seq_id):
            if p0 <= cell.position and (p1 < 0 or cell.position < p1):
                cell.position += delta
                cell.behind += delta
                cell.shift += delta

    def seq_detach(self, seq_id: int) -> bool:
        state = self.state_get(seq_id)
        return self.state_set(seq_id, state)

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        return len(self.state_get(seq_id, part=part))

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes | memoryview:
        folded = self.states.get(seq_id)
        cells = [] if part and folded and not self.part_is_all else self.of(seq_id)
        state = repr(
            (
                [(plain(cell.said), cell.position, cell.behind, cell.stream.get(cell.place, STALE)) for cell in cells],
                folded and (folded.value, folded.position),
            )
        ).encode()
        if into is None:
            return state
        into[: len(state)] = state
        return into[: len(state)]

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        cells, folded = ast.literal_eval(bytes(state).decode())
        assert not part or self.part_is_all or self._n_window or self.seq_pos_max(seq_id) >= folded[1], "lacks cells"
        if not part or cells:
            self.seq_rm(seq_id, -1, -1)
        if folded:
            self._forget_state(seq_id)
            self.states[seq_id] = Folded(*folded)
        if len(self.cells) + len(cells) > self.n_cells:
            self.states.pop(seq_id, None)
            return False
        for name, position, behind, content in cells:
            said = name if isinstance(name, int) else (Media(*name[:-1]), name[-1])
            self._add(seq_id, said, position, behind, content)
        return True

    def seq_pos_min(self, seq_id: int) -> int:
        return min((cell.position for cell in self.of(seq_id)), default=-1)

    def seq_pos_max(self, seq_id: int) -> int:
        return max((cell.position for cell in self.of(seq_id)), default=-1)

    def clear(self) -> None:
        self.cells.clear()
        for seq_id in list(self.states):
            self._forget_state(seq_id)
        for stream in self._streams.values():
            stream.clear()

    def begin(self, n_sequences: int = 1) -> None:
        """A decode with rows of so many sequences begins.

        It may move the state of any that is not computed last, or side by side with others, and leave behind those
        that are kept of before.
        """
        self.carry_out()
        self._planes.clear()
        self._n_kept = self.n_rollback if n_sequences <= 2 else 0

    def _roll_back(self, seq_id: int, n_cells: int) -> bool:
        planes = self._planes.get(seq_id, [])
        if seq_id in self._before or n_cells > self.n_rollback:
            return False
        self._before[seq_id] = state = self.states[seq_id]
        kept = planes[n_cells - 1] if n_cells <= len(planes) else Folded(404)
        self.states[seq_id] = replace(kept, position=state.position - n_cells)
        return True

    def _forget_state(self, seq_id: int) -> None:
        for states in (self.states, self._planes, self._before):
            states.pop(seq_id, None)

    def compute(self, seq_id: int, said: Said, position: int, lora: LoraSet = ()) -> int:
        """Add one cell behind the sequence's last. Returns its value, from which the next token follows.

        `position` is a token's own, or that of the first row of the chunk.
        """
        self.carry_out()
        before = self.of(seq_id)
        last = before[-1] if before else None
        expected = goes_on_at(last.said, last.position) if last else 0
        assert position == expected, f"sequence {seq_id}: position {position} where {expected} comes next"
        assert said in following(last.said if last else None, said), "a media chunk was cut"
        stands = stands_at(said, position)
        if self._n_window:
            before = [cell for cell in before if cell.position > stands - self._n_window]
            assert not before or before[0].behind <= max(-1, stands - self._n_window), "lost its window"
        contents = [cell.content for cell in before]
        if not self.partial_removal:
            state = self.states.get(seq_id, Folded())
            assert state.position == (last.position if last else -1), "a state of other cells"
            contents.append(state.value)
        value = value_of(said, stands, lora, contents)
        self._add(seq_id, said, stands, last.position if last else -1, (value, stands))
        if not self.partial_removal:
            self.states[seq_id] = state.after(value, stands)
            self._before.pop(seq_id, None)
            planes = self._planes.get(seq_id)
            self._planes[seq_id] = [] if planes is None else [state, *planes][: self._n_kept]
        return value

    def make_place(self, seq_id: int, position: int) -> None:
        """A ubatch begins with `position`: what a window does not reach from there is forgotten, and nothing later."""
        if self._n_window:
            for cell in self.of(seq_id):
                if cell.position <= position - self._n_window:
                    cell.owners.discard(seq_id)
            self._sweep()

    def _stream(self, seq_id: int) -> dict[int, Content]:
        return self._streams.setdefault(0 if self._unified else seq_id, {})

    def _add(self, seq_id: int, said: Said, position: int, behind: int, content: Content) -> None:
        """A cell at the first place that nobody holds."""
        stream = self._stream(seq_id)
        taken = {cell.place for cell in self.cells if cell.stream is stream}
        place = next(i for i in count() if i not in taken)
        stream[place] = content
        self.cells.append(Cell(said, position, behind, stream, place, {seq_id}))

    def _sweep(self) -> None:
        self.cells = [cell for cell in self.cells if cell.owners]


def content_of(value: int, position: int) -> int:
    return (value << 20) + position


def plain(said: Said) -> int | tuple[bytes, int, int, bool, int]:
    """For a state: numbers and bytes alone."""
    if isinstance(said, int):
        return said
    media, row = said
    return (media.key, media.n_cells, media.n_positions, media.is_causal, row)


def following(last: Said | None, said: Said) -> tuple[Said, ...]:
    """What may come behind `last`, `said` among it if that is so: the next row of a chunk until it is whole."""
    if isinstance(last, tuple) and last[1] + 1 < last[0].n_cells:
        return ((last[0], last[1] + 1),)
    return (said if isinstance(said, int) else (said[0], 0),)


def value_of(said: Said, position: int, lora: LoraSet, before: Seq[int]) -> int:
    """The value of a cell that attends to cells with the contents `before`."""
    scales = (round(1000 * number) for pair in lora for number in pair)
    return digest(name_of(said), position, *scales, *before)


@cache
def fresh_contents(
    said: tuple[Said, ...], lora: LoraSet, n_window: int = 0, is_recurrent: bool = False
) -> tuple[list[int], Folded]:
    """What is in the cells of a text where nobody else ever was, and in its state."""
    state = Folded()
    stands: list[int] = []
    contents: list[int] = []
    begins = 0
    for each in said:
        stands.append(stands_at(each, begins))
        first = bisect_right(stands, stands[-1] - n_window) if n_window else 0
        before = [*contents[first:], state.value] if is_recurrent else contents[first:]
        value = value_of(each, stands[-1], lora, before)
        state = state.after(value, stands[-1])
        contents.append(content_of(value, stands[-1]))
        begins = goes_on_at(each, stands[-1])
    return contents, state


class FakeSampler:
    """Mixes its seed and its accepted tokens into the choice, so that a mixed-up sampler shows."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.params = params
        self.seed = seed
        self.n_sampled = 0
        self.history: list[int] = []
        self.closed = False

    @property
    def wants_history(self) -> bool:
        return self.params.repeat_penalty != 1.0

    @property
    def takes_highest(self) -> bool:
        return self.params.temperature == 0 and not self.wants_history

    def accept(self, token: int) -> None:
        self.history.append(token)

    def accept_all(self, tokens: Seq[int]) -> None:
        self.history += tokens

    def close(self) -> None:
        self.closed = True

    def choose(self, value: int, n_vocab: int, mask: TokenMask | None = None) -> int:
        """A token of `mask`; -1 where it is empty."""
        assert not self.closed
        self.n_sampled += 1
        seed = 0 if self.params.temperature == 0 else self.seed
        own = () if self.takes_highest else (self.n_sampled, *self.history)
        token = digest(value, seed, *own) % n_vocab
        if mask is not None:
            allowed = [each for each in range(n_vocab) if mask[each >> 5] >> (each & 31) & 1]
            if self.params.ignore_eos and allowed != [EOG]:
                allowed = [each for each in allowed if each != EOG]
            if self.takes_highest:  # the first that is allowed from the one on that it takes of all
                if token == EOG and self.params.ignore_eos:
                    token = 1
                return min(allowed, key=lambda each: (each - token) % n_vocab, default=-1)
            token = allowed[token % len(allowed)] if allowed else -1
        elif token == EOG and self.params.ignore_eos:
            token = 1
        if self.wants_history:
            self.history.append(token)
        return token


def ours(sampler: Sampler) -> FakeSampler:
    """The engine hands back the very samplers that FakeSource made."""
    assert isinstance(sampler, FakeSampler)
    return sampler


class FakeSource:
    """Makes FakeSamplers, which it adds to `made`."""

    def __init__(self, params: SamplingParams, prompt: Seq[int], made: list[FakeSampler]) -> None:
        self._params = params
        self._prompt = prompt
        self._made = made

    def start(self, seed: int) -> FakeSampler:
        sampler = FakeSampler(self._params, seed)
        if sampler.wants_history:
            sampler.history += self._prompt
        self._made.append(sampler)
        return sampler


def rows_of(batch: Batch) -> list[tuple[Run, int]]:
    """The rows of a batch in their order: each one's run, and its place in that."""
    return [(run, i) for run in batch.runs for i in range(len(run))]


def check_runs(batch: Batch) -> None:
    """No run is empty or asks for more outputs than it has rows."""
    assert batch.n_rows == sum(map(len, batch.runs))
    for run in batch.runs:
        assert len(run) > 0
        assert 0 <= run.n_outputs <= len(run)


def check_media(batch: Batch, n_ubatch: int) -> None:
    """Tokens and media do not meet. A chunk that is not causal is computed whole, by itself and at once."""
    assert len({isinstance(run.content, MediaRows) for run in batch.runs}) == 1, "tokens beside media"
    for run in batch.runs:
        if isinstance(run.content, MediaRows) and not run.content.media.is_causal:
            assert (run.content.start, run.content.stop) == (0, run.content.media.n_cells), "a chunk is cut"
            assert len(batch.runs) == 1, "company for a chunk that is not causal"
            assert len(run) <= n_ubatch, "libllama ends the process"


def said_in(run: Run, row: int) -> tuple[Said, int]:
    """What a row of a run says, and the position that says where it comes."""
    if isinstance(run.content, MediaRows):
        return (run.content.media, run.content.start + row), run.position
    return run.content[row], run.position + row


def ubatches(batch: Batch, n_ubatch: int) -> list[dict[int, int]]:
    """How libllama cuts a batch with separate KV streams (split_equal): rows by sequence of each ubatch.

    Each takes the first sequence that is left and those with the ids right behind it, and of all the same number of
    rows: as many as the shortest has, and as fit.
    """
    left = Counter({run.seq_id: len(run) for run in batch.runs})
    found: list[dict[int, int]] = []
    while left:
        first = min(left)
        side_by_side = list(takewhile(left.__contains__, count(first)))[: n_ubatch + 1]
        n_rows = min(min(left[seq_id] for seq_id in side_by_side), max(n_ubatch // len(side_by_side), 1))
        found.append(dict.fromkeys(side_by_side, n_rows))
        left = Counter({seq_id: n - n_rows * (seq_id in side_by_side) for seq_id, n in left.items()})
        left = +left
    return found


def _check_kinds(batch: Batch, n_ubatch: int) -> None:
    """All rows are lone or none is, also where libllama cuts the batch."""
    lengths = {run.seq_id: len(run) for run in batch.runs}
    is_lone = {length == 1 for length in lengths.values()}
    assert len(is_lone) == 1, f"lone rows beside runs: {lengths}"
    for ubatch in ubatches(batch, n_ubatch):
        assert {n_rows == 1 for n_rows in ubatch.values()} == is_lone, f"a run leaves a lone row: {lengths}"


class FakeEncoder:
    """Makes a chunk's rows `at_once`, or else when the test says so, in whatever order, or lets that fail.

    It holds the rows of no chunk that nobody wants, and takes only what is the wanting request's own.
    """

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.wanted: dict[tuple[str, int], tuple[Media, ...]] = {}
        self.asked: dict[tuple[str, int], list[Media]] = {}  # all that a sequence has ever wanted
        self.harmed: dict[tuple[str, int], errors.LlamaboxError] = {}  # sequences that wanted what failed
        self.n_made = 0
        self._chunks: dict[str, set[Media]] = {}  # of the requests that run
        self._made: set[Media] = set()
        self._errors: dict[Media, errors.LlamaboxError] = {}

    @property
    def outstanding(self) -> list[Media]:
        """Chunks that are wanted and neither made nor failed, in the order in which they were asked for."""
        all_wanted = dict.fromkeys(media for chunks in self.wanted.values() for media in chunks)
        return [media for media in all_wanted if media not in self._made and media not in self._errors]

    def make(self, media: Media) -> None:
        assert media in self.outstanding
        self._made.add(media)
        self.n_made += 1

    def fail(self, media: Media, error: errors.LlamaboxError) -> None:
        """Whoever wants `media` now will not get it; who wants it later may."""
        assert media in self.outstanding
        self._errors[media] = error
        self.harmed |= {key: error for key, chunks in self.wanted.items() if media in chunks}

    def take(self, request_id: str, prompt: Prompt, contents: Mapping[Media, object]) -> None:
        self._chunks.setdefault(request_id, set()).update(part for part in prompt if isinstance(part, Media))

    def want(self, key: tuple[str, int], chunks: Seq[Media]) -> None:
        assert set(chunks) <= self._chunks[key[0]], "chunks of somebody else"
        new = set(chunks) - set(self.wanted.get(key, ()))
        self.asked.setdefault(key, []).extend(new)
        self.wanted.pop(key, None)
        if chunks:
            self.wanted[key] = tuple(chunks)
        for media in new & self._errors.keys():
            self.harmed[key] = self._errors[media]
        held = {media for chunks in self.wanted.values() for media in chunks}
        self._made &= held
        self._errors = {media: error for media, error in self._errors.items() if media in held}
        if self.at_once:
            for media in self.outstanding:
                self.make(media)

    @property
    def is_idle(self) -> bool:
        return not self.outstanding

    def is_ready(self, media: Media) -> bool:
        return media in self._made

    def error(self, media: Media) -> errors.LlamaboxError | None:
        return self._errors.get(media)

    def forget(self, request_id: str) -> None:
        assert not any(key[0] == request_id for key in self.wanted), "a request that is over wants something"
        self._chunks.pop(request_id, None)

    def count(self, activity: Activity) -> None:
        activity.n_encoded = self.n_made
        activity.n_encoding = len(self.outstanding)

    def is_empty(self) -> bool:
        """Whether it holds nothing of anybody."""
        return not (self._chunks or self.wanted or self._made or self._errors)


class FakeRunner:
    """A model whose next token is a hash of the cells its last token attended to.

    `failures` are raised by the next calls of `execute`, in order; None stands for a call that succeeds.
    """

    def __init__(
        self,
        *,
        n_batch: int = 64,
        n_ubatch: int = 32,
        n_vocab: int = 257,
        memory: FakeMemory | None = None,
        adds_bos: bool = False,
        tile: int = 1,
        mixes: bool = True,
        is_steady: bool = False,
        takes_media: bool = True,
        has_spare_core: bool = False,
        marks: frozenset[int] = frozenset(),
    ) -> None:
        self.encoder: FakeEncoder | None = None  # which must have made all media rows; None: nobody looks
        self.facts = RunnerFacts(
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            tile=tile,
            mixes=mixes,
            is_steady=is_steady,
            takes_media=takes_media,
            adds_bos=adds_bos,
            has_spare_core=has_spare_core,
            marks=marks,
        )
        self._memory = memory or FakeMemory()
        self.n_vocab = n_vocab
        self.failures: list[errors.DecodeError | None] = []
        self.batches: list[Batch] = []
        self.samplers: list[FakeSampler] = []
        self._values: dict[int, int] = {}  # of the last batch's rows that yield logits
        self._said: list[Said] = []  # of its rows
        self._seq_ids: list[int] = []

    @property
    def memory(self) -> FakeMemory:
        return self._memory

    def sampler_source(self, params: SamplingParams, prompt: Seq[int], n_ctx: int) -> FakeSource:
        if params.top_k == 666:
            raise errors.InvalidRequest("Field 'top_k': the fake will not have it", field="top_k")
        return FakeSource(params, prompt, self.samplers)

    def execute(self, batch: Batch) -> None:
        assert 0 < len(batch) <= self.facts.n_batch
        check_runs(batch)
        check_media(batch, self.facts.n_ubatch)
        for run in batch.runs:
            if isinstance(run.content, MediaRows) and self.encoder is not None:
                assert self.encoder.is_ready(run.content.media), "rows that are not there"
        seq_ids = [run.seq_id for run in batch.runs]
        assert seq_ids == sorted(set(seq_ids)), "a sequence has one run, and they come in the order of their ids"
        if not self.facts.mixes and not self.facts.is_steady:
            _check_kinds(batch, self.facts.n_ubatch)
        self._memory.begin(len(batch.runs))
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, errors.NoRoom):
            raise failure
        if len(self._memory.cells) + len(batch) > self._memory.n_cells:
            raise errors.NoRoom("no room in the fake")
        self.batches.append(batch)
        self._values = {}
        self._said = [said_in(run, i)[0] for run, i in rows_of(batch)]
        self._seq_ids = [run.seq_id for run, _ in rows_of(batch)]
        for row, (run, i) in enumerate(rows_of(batch)):
            if failure is not None and row >= len(batch) // 2:
                raise failure
            said, position = said_in(run, i)
            if i % self.facts.n_ubatch == 0:
                self._memory.make_place(run.seq_id, stands_at(said, position))
            value = self._memory.compute(run.seq_id, said, position, batch.lora)
            if i >= len(run) - run.n_outputs:
                self._values[row] = value

    def wait(self) -> None:
        pass

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        return [self._sample(ask) for ask in asks]

    def _sample(self, ask: Ask) -> list[int]:
        n_rows = len(ask.rows)
        assert n_rows == 1 + len(ask.draft), "a row for each token of the draft, and one behind it"
        assert len(ask.masks) in (0, n_rows)
        assert [self._said[row] for row in ask.rows[1:]] == list(ask.draft), "the draft is not what was computed"
        assert len({self._seq_ids[row] for row in ask.rows}) == 1, "rows of two sequences"
        assert not ask.draft or self.facts.may_draft, "a draft where a run has other bits than lone rows"
        tokens: list[int] = []
        for i, row in enumerate(ask.rows):
            mask = ask.masks[i] if ask.masks else None
            tokens.append(ours(ask.sampler).choose(self._values[row], self.n_vocab, mask))
            if tokens[i] < 0 or i == len(ask.draft) or tokens[i] != ask.draft[i]:
                break
        return tokens

    def logprobs(self, row: int, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
        """Of a few tokens only: the whole vocabulary would take long."""
        values = {each: -(digest(self._values[row], each) % 1000) / 100 for each in (*range(16), token)}
        likeliest = sorted(values, key=lambda each: (-values[each], each))[:n]
        return values[token], [(each, values[each]) for each in likeliest]

    def distribution(self, row: int, sampler: Sampler, mask: TokenMask | None) -> Distribution:
        """The token that will be chosen, and others that are less likely."""
        coming = copy.deepcopy(ours(sampler)).choose(self._values[row], self.n_vocab, mask)
        ids = [(coming + i) % self.n_vocab for i in (2, 0, 1)]
        return Distribution(np.array(ids, np.int32), np.array([0.2, 0.5, 0.3]))

    def piece(self, token: int, special: bool) -> bytes:
        return b"" if token == EOG and not special else bytes([token % 256])

    def is_eog(self, token: int) -> bool:
        return token == EOG


class FakeConstraint:
    """Follows a FakeGrammar, and punishes what a real matcher would."""

    def __init__(self, grammar: FakeGrammar) -> None:
        self._grammar = grammar
        self._n_accepted = 0
        self._state = 0
        self._prepared = False
        self._has_refused = False  # a token, in this state
        self._masks: list[TokenMask | None] = []
        self.is_ahead = False  # a copy that looks what comes
        self.n_masks = 0  # computed so far

    @property
    def is_complete(self) -> bool:
        return self._n_accepted >= self._grammar.n_tokens

    def allowed(self) -> list[int]:
        """In a state of two the only token, else a handful; the end everywhere but among those that are forced."""
        if self.is_complete:
            return [EOG]
        if self._grammar.fails_at == self._n_accepted:
            raise errors.InvalidRequest("the fake cannot follow")
        n_choices = 1 if self._n_accepted % self._grammar.period else self._grammar.n_choices
        choices = [1 + digest(self._grammar.seed, self._state, i) % 200 for i in range(n_choices)]
        return choices if n_choices == 1 or not self._grammar.may_end else [EOG, *choices]

    def forced(self, n_most: int) -> list[int]:
        ahead = copy.copy(self)
        tokens: list[int] = []
        while (
            self._grammar.forces
            and len(tokens) < n_most
            and not ahead.is_complete
            and len(choices := ahead.allowed()) == 1
        ):
            tokens.append(choices[0])
            ahead._move(choices[0])
        return tokens

    def accept(self, token: int) -> None:
        assert token != EOG
        assert token in self.allowed(), "a token that the grammar forbids"
        self._move(token)
        self._prepared = self.is_ahead
        self._has_refused = False

    def accept_all(self, tokens: Seq[int]) -> None:
        for token in tokens:
            self.accept(token)

    def try_accept(self, token: int) -> bool:
        if not self.n_allowed([token]):
            return False
        self.accept(token)
        return True

    def is_free_behind(self, token: int) -> bool:
        assert self._prepared or self._has_refused, "a token that no mask allowed"
        guesses = self._grammar.seed if self._grammar.guesses < 0 else self._grammar.guesses
        return guesses > 0 and digest(self._grammar.seed, token) % guesses == 0

    def accept_beside(self, token: int) -> None:
        self.accept(token)
        self.prepare()

    def prepare_choice(self) -> None:
        if not self.forced(1):
            self.prepare()

    @property
    def is_prepared(self) -> bool:
        return self._prepared

    def prepare(self, *, at_once: bool = False) -> None:
        self.n_masks += not self._prepared
        self._prepared = True

    def choice(self) -> TokenMask | None:
        if self.forced(1):
            return None
        mask = self.mask()
        return None if self.is_complete else mask

    def mask(self) -> TokenMask:
        assert self._prepared or self._has_refused, "the mask is computed while nothing else runs"
        self.n_masks += not self._prepared
        self._prepared = True
        mask = np.zeros(9, np.uint32)
        for token in self.allowed():
            mask[token >> 5] |= np.uint32(1 << (token & 31))
        return mask

    def n_allowed(self, tokens: Seq[int]) -> int:
        ahead = copy.copy(self)
        for i, token in enumerate(tokens):
            if token == EOG or token not in ahead.allowed():
                self._has_refused |= i == 0
                return i
            ahead._move(token)
        return len(tokens)

    def mask_behind(self, tokens: Seq[int]) -> TokenMask | None:
        ahead = copy.copy(self)
        for token in tokens:
            ahead.accept(token)
        ahead.prepare()
        mask = ahead.mask()
        return None if ahead.is_complete else mask

    def places(self, draft: Seq[int], *, forces: bool) -> list[TokenMask | None]:
        return self._walk(draft, forces=forces, masks=False)

    def look_ahead(self, draft: Seq[int], *, forces: bool) -> None:
        self._masks = self._walk(draft, forces=forces, masks=True)

    def _walk(self, draft: Seq[int], *, forces: bool, masks: bool) -> list[TokenMask | None]:
        assert self.n_allowed(draft) == len(draft), "a draft that the grammar forbids"
        ahead = copy.copy(self)
        ahead.is_ahead = ahead._prepared = True
        return walk(ahead, draft, forces=forces, masks=masks)

    def masks_ahead(self) -> list[TokenMask | None]:
        return self._masks

    def _move(self, token: int) -> None:
        self._n_accepted += 1
        self._state = digest(self._state, token)


@dataclass(frozen=True)
class FakeGrammar:
    """Texts of up to `n_tokens` tokens: a choice, then `period` - 1 tokens that follow from those before, and again.

    With `forces` it knows that the latter have no choice; else only its masks tell. Behind one of `guesses` tokens, or
    none, it thinks that there is a choice before it has moved on; -1: as its seed is.
    """

    seed: int = 0
    n_tokens: int = 20
    period: int = 4
    forces: bool = True
    may_end: bool = False
    fails_at: int = -1
    n_choices: int = 5
    guesses: int = -1
    is_ready: ClassVar[bool] = True

    def start(self) -> FakeConstraint:
        return FakeConstraint(self)


class FakeComing:
    """A Grammar that is not ready until the test says so."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self.is_ready = False

    def start(self) -> Constraint:
        assert self.is_ready, "a grammar that is still compiled"
        return self._grammar.start()


class FakeDrafter:
    """Drafts `n_right` tokens of each of `texts`, which is what sequences will say, then others. -1: a random number.

    With a `period` it has nothing at every so many-th token. Punishes what would lead a real one astray: cells that are
    not what was said, words about drafts that nobody made, ends that were not told.
    """

    computes = True

    def __init__(
        self,
        texts: Mapping[Key, Seq[int]],
        *,
        n_right: int,
        length: int = 4,
        source: Source = Source.HISTORY,
        period: int = 0,
    ) -> None:
        self._texts = texts
        self._n_right = n_right
        self._length = length
        self._source = source
        self._period = period
        self._open: dict[Key, Draft] = {}  # drafts that were not verified yet
        self._seen: dict[Key, list[int]] = {}  # cells at the last wish, of sequences that run
        self.n_drafted = 0
        self.n_accepted = 0
        self.came: Counter[Key] = Counter()  # accepted tokens of each sequence
        self.n_truncated = 0
        self.said: dict[Key, list[int]] = {}  # of the sequences that ended

    def propose(self, wishes: Seq[Wish]) -> list[Draft | None]:
        assert len({wish.key for wish in wishes}) == len(wishes)
        drafts = [self._draft(wish) for wish in wishes]
        for wish, draft in zip(wishes, drafts, strict=True):
            self._open.pop(wish.key, None)
            if draft is not None:
                self._open[wish.key] = draft
        return drafts

    def _draft(self, wish: Wish) -> Draft | None:
        assert wish.n_most > 0
        assert wish.key not in self.said, "a sequence that has ended"
        assert wish.params.n_max < 0 or wish.n_most <= wish.params.n_max
        cells = wish.cells.keys()
        seen = self._seen.get(wish.key, [])
        assert cells[: len(seen)] == seen, "a sequence changed its mind"
        self._seen[wish.key] = cells
        if wish.key not in self._texts:
            return None
        text = list(self._texts[wish.key])
        assert not text or cells[-1] == text[wish.n_generated - 1], "not what was said"
        if self._period and wish.n_generated % self._period == 0:
            return None
        n_right = self._n_right
        if n_right < 0:
            n_right = digest(wish.n_generated, *wish.key[0].encode()) % (self._length + 1)
        coming = text[wish.n_generated : wish.n_generated + self._length]
        coming += [1] * (self._length - len(coming))
        tokens = coming[:n_right] + [token + 1 for token in coming[n_right:]]
        chances = [0.5] * len(tokens) if self._source is Source.MODEL else []
        return Draft(tokens, self._source, n_match=wish.n_generated % 20, chances=chances)

    def accepted(self, key: Key, draft: Draft, n_verified: int, n_accepted: int) -> None:
        assert self._open.pop(key) is draft, "nobody drafted that"
        assert 0 < n_verified <= len(draft.tokens)
        assert 0 <= n_accepted <= n_verified
        self.n_drafted += n_verified
        self.n_accepted += n_accepted
        self.came[key] += n_accepted

    def truncated(self, key: Key) -> None:
        self._seen.pop(key, None)
        self.n_truncated += 1

    def forget(self, key: Key, said: Seq[int]) -> None:
        assert key not in self.said, "it has ended twice"
        self._open.pop(key, None)
        self._seen.pop(key, None)
        self.said[key] = list(said)

    def is_empty(self) -> bool:
        """Whether it holds nothing of anybody."""
        return not (self._open or self._seen)


class FreePrice:
    """A Price at which rows cost nothing: all of a draft is verified, as far as there is room."""

    def lengths(self, step: Step, offers: Seq[Offer], room: int) -> list[int]:
        assert len({offer.index for offer in offers}) == len(offers)
        assert [slot for slot, _ in step.rows] == sorted({slot for slot, _ in step.rows})
        lengths = []
        for offer in offers:
            assert step.rows[offer.index][1] >= 1
            lengths.append(self.length(offer, room))
            room -= lengths[-1]
        return lengths

    def length(self, offer: Offer, room: int) -> int:
        return min(len(offer.draft.tokens), offer.n_most, room)

    def promises(self, draft: Draft) -> float:
        return len(draft.tokens)

    def seconds(self, step: Step) -> float:
        return 0.0

    def pays(self, step: Step, n_drafts: int, length: float, promise: float, seconds: float) -> bool:
        return True

    def verified(self, draft: Draft, n_verified: int, n_came: int) -> None:
        assert 0 <= n_came <= n_verified <= len(draft.tokens)
        assert n_verified > 0

    def computed(self, rows: Seq[tuple[int, int]], n_context: int, seconds: float) -> None:
        assert seconds > 0


class RandomPrice(FreePrice):
    """A Price that knows nothing and says so."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._n_asked = 0

    def _draw(self, n: int) -> int:
        self._n_asked += 1
        return digest(self._seed, self._n_asked) % n

    def length(self, offer: Offer, room: int) -> int:
        return self._draw(super().length(offer, room) + 1)

    def promises(self, draft: Draft) -> float:
        return float(self._draw(5))

    def pays(self, step: Step, n_drafts: int, length: float, promise: float, seconds: float) -> bool:
        return bool(self._draw(2))


class FakePooler:
    """A Pooler whose vector of a passage is its length and a hash of its tokens, so that nothing can be mixed up."""

    filler = 0

    def __init__(
        self, n_batch: int = 16, n_sequences: int = 4, *, splits: bool = False, is_tiled: bool = False
    ) -> None:
        self.n_batch = n_batch
        self.n_sequences = n_sequences
        self.splits = splits
        self.is_tiled = is_tiled
        self.fails: Callable[[Batch], bool] = lambda batch: False
        self.batches: list[list[int]] = []  # the lengths of what was in each
        self.encoder: FakeEncoder | None = None  # whose rows it takes
        self._resident: dict[int, list[int]] = {}
        self._last: dict[int, list[int]] = {}  # sequence → rows of the last batch
        self._shift = 0  # by how much the cells of the passage with media are more than their positions

    def execute(self, batch: Batch) -> None:
        assert 0 < len(batch) <= self.n_batch
        check_media(batch, self.n_batch)
        if self.fails(batch):
            raise errors.DecodeFatal("it broke")
        self._last = {}
        check_runs(batch)
        for row, (run, i) in enumerate(rows_of(batch)):
            assert 0 <= run.seq_id < self.n_sequences + self.is_tiled, "of the filling there is one more"
            assert run.n_outputs == len(run), "libllama makes vectors of all rows or complains"
            self._resident.setdefault(run.seq_id, []).append(self._cell(run, i))
            self._last.setdefault(run.seq_id, []).append(row)
        assert (self.splits or self.encoder) or all(
            len(self._resident[seq_id]) == len(rows) for seq_id, rows in self._last.items()
        )
        self.batches.append([len(rows) for seq_id, rows in self._last.items() if seq_id < self.n_sequences])

    def _cell(self, run: Run, i: int) -> int:
        """What a row computes, which must be its sequence's next."""
        n_resident = len(self._resident[run.seq_id])
        content = run.content
        if not isinstance(content, MediaRows):
            shift = self._shift if run.seq_id == 0 else 0
            assert run.position + i == n_resident - shift, "a hole, or tokens of an earlier passage"
            return content[i]
        media = content.media
        assert self.encoder is not None
        assert self.encoder.is_ready(media), "rows that are not there"
        assert run.position + content.start + i == n_resident - self._shift, "a hole, or rows of an earlier chunk"
        if content.start + i == media.n_cells - 1:
            self._shift += media.n_cells - media.n_positions
        return cell_of(media, content.start + i)

    def vector(self, seq_id: int, rows: range) -> bytes:
        assert list(rows) == self._last[seq_id]
        return vector_of(tuple(self._resident[seq_id]))

    def joined(self, parts: Seq[tuple[int, bytes]]) -> bytes:
        assert sum(n_rows for n_rows, _ in parts) == len(self._resident[0]), "a batch was left out"
        return parts[-1][1]

    def forget(self) -> None:
        self._resident.clear()
        self._shift = 0


def cell_of(media: Media, row: int) -> int:
    """What FakePooler computes in a row of a chunk."""
    return digest(int.from_bytes(media.key, "big"), row)


def vector_of(tokens: tuple[int, ...]) -> bytes:
    """What FakePooler makes of a passage."""
    return struct.pack("<2f", len(tokens), digest(*tokens) % 2**20)


if TYPE_CHECKING:  # mypy holds each fake to the seam that it stands for
    _memory: type[Memory] = FakeMemory
    _sampler: type[Sampler] = FakeSampler
    _source: type[SamplerSource] = FakeSource
    _runner: type[Runner] = FakeRunner
    _constraint: type[Constraint] = FakeConstraint
    _grammar: type[Grammar] = FakeGrammar
    _encoder: type[Encoder] = FakeEncoder
    _pooler: type[Pooler] = FakePooler
    _drafter: type[Drafter] = FakeDrafter
    _price: type[Price] = FreePrice
