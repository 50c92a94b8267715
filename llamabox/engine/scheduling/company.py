"""Who may share a batch with whom, and how long runs may be beside each other: the one place that knows of kernels.

On a CPU, flash attention computes a ubatch of at least a tile's rows of one sequence tile by tile, a shorter one row by
row, which costs several times as much: at 1,000 cells 63 rows took three times as long as 64. Without flash attention a
lone row costs the same, but has other low bits than the same row in a run of two or more.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

from llamabox.engine.request import NO_MEDIA, LoraSet, Media
from llamabox.engine.seams import RunnerFacts
from llamabox.errors import InvalidRequest

LEAST_REST = 8
"""Cells of a prompt that are worth a pass over the weights of their own. So is a quarter of a chunk."""


class Kind(IntEnum):
    """A batch has runs of one kind. Where several kinds wait equally long, the lowest goes first."""

    ANY = 0
    """All tokens, where the runner mixes."""

    LONE = 1
    """A row that decodes, with the drafts behind it; and what a grammar forces, where rows are steady."""

    APART = 2
    """Rows that decode in slots apart from those of most others, for which libllama has a further pass."""

    RUN = 3
    """A chunk of a prompt, or what a grammar forces, where rows are not steady."""

    MEDIA = 4
    """Rows of pictures and sounds, of one sequence or several: libllama takes no tokens beside them."""

    EXCLUSIVE = 5
    """A chunk of which each cell sees all others: nobody else may be in its batch."""


class Company:
    """Decides which runs share a batch. Owned by the engine's thread; changed by `turn` only.

    Where rows do not mix, a sequence's runs are what they would be without the others: all of a prompt goes in runs of
    two or more, so that two cells of it are computed where one would do, and what a grammar forces goes whole.

    Where they do not mix but are steady, what a grammar forces goes beside lone rows. Kept apart, these would lose
    passes: libllama computes separate KV streams together only where their ids follow one another, and a sequence that
    stands back for its run leaves a gap.
    """

    def __init__(self, facts: RunnerFacts) -> None:
        self.mixes = facts.mixes
        """Whether lone rows and runs go into one batch."""
        self.forces_beside = facts.mixes or facts.is_steady
        """Whether what a grammar forces goes beside lone rows, in runs of any length."""
        self.parts_stragglers = facts.is_steady and not facts.mixes
        """Whether lone rows may be computed in two batches."""
        self._n_batch = facts.n_batch
        self._tile = facts.tile if 2 * (facts.tile + 1) <= facts.n_batch else 1
        self._takes_media = facts.takes_media
        self._waits: dict[LoraSet, dict[Kind, int]] = {}  # batches for which a kind has stood back since its last one
        self.n_chunk = min(facts.n_ubatch, facts.n_batch)
        """The most prompt tokens of a batch in which nobody decodes."""
        self.n_least = 1 if facts.mixes else 2
        """Cells of a prompt that are computed at the least, so that its last row is not alone."""

    def check(self, media: Media) -> None:
        """Raise InvalidRequest for a chunk that no batch could hold."""
        if not self._takes_media:
            raise InvalidRequest(f"Field 'prompt': {NO_MEDIA}", field="prompt")
        if not media.is_causal and media.n_cells > self.n_chunk:  # libllama would end the process
            raise InvalidRequest(
                f"Field 'prompt': an image of {media.n_cells} tokens must be computed at once, and this server "
                f"computes at most {self.n_chunk} (--ubatch-size)",
                field="prompt",
            )

    def kinds(
        self,
        lengths: Collection[int],
        *,
        has_prompts: bool,
        has_media: bool = False,
        has_exclusive: bool = False,
        has_apart: bool = False,
    ) -> set[Kind]:
        """The kinds of runs of these lengths that decode, drafts not counted, and of chunks if there are prompts.

        `has_media`: there are rows of pictures or sounds. `has_exclusive`: of some that must be computed by themselves.
        `has_apart`: some of those that decode are `stragglers`, which have a kind of their own.
        """
        kinds = {Kind.MEDIA} if has_media else set()
        if has_exclusive:
            kinds.add(Kind.EXCLUSIVE)
        if has_apart:
            kinds.add(Kind.APART)
        if self.mixes:
            return kinds | {Kind.ANY} if lengths or has_prompts else kinds
        if 1 in lengths or (lengths and self.forces_beside):
            kinds.add(Kind.LONE)
        if has_prompts or (not self.forces_beside and any(length > 1 for length in lengths)):
            kinds.add(Kind.RUN)
        return kinds

    def turn(self, lora: LoraSet, kinds: Collection[Kind]) -> Kind:
        """The kind that the next batch with this LoRA set is of: of those that could go, the one that waits longest.

        What decodes stands back for one batch at a time, since each of the others may take as long as its pace allows.
        """
        waits = self._waits.get(lora)
        if waits is None:
            if len(kinds) == 1:
                return next(iter(kinds))
            waits = self._waits[lora] = {}
        first = min(kinds)
        if first <= Kind.LONE and first in waits:
            chosen = first
        else:
            chosen = max(kinds, key=lambda kind: (waits.get(kind, 0), -kind))
        waits.pop(chosen, None)
        for kind in kinds:
            if kind is not chosen:
                waits[kind] = waits.get(kind, 0) + 1
        if not waits:
            del self._waits[lora]
        return chosen

    def room(self, kind: Kind, n_decoding: int) -> int:
        """Cells that a batch of this kind has room for, beside a row for each of `n_decoding` that decode."""
        return self.n_chunk if kind in (Kind.RUN, Kind.MEDIA) else self._n_batch - n_decoding

    def run_length(self, kind: Kind, n_cells: int, n_most: int, others: Collection[int]) -> int:
        """How many of `n_cells` that a sequence has for a batch go into it; 0: it stands back.

        At most `n_most`; `others` are the lengths of the runs that are in it.
        """
        if kind is not Kind.RUN:
            return min(n_cells, n_most)
        return run_length(n_cells, n_most, others) or (0 if others else min(n_cells, n_most))

    def chunk_length(
        self,
        n_pending: int,
        n_computed: int,
        n_chunk: int,
        n_most: int,
        others: Collection[int],
        least_rest: int = LEAST_REST,
    ) -> int:
        """How many of a prompt's `n_pending` cells behind `n_computed` go into a batch; 0: it stands back.

        About `n_chunk`, and more only where whole tiles alone are worth computing, or where what is left would have
        passes of its own and is not worth them: up to `least_rest` cells, or a quarter of a chunk. At most `n_most`.
        """
        n_cells = min(portion(n_pending, n_computed, n_chunk, tile=self._tile), n_most)
        if self.mixes:
            return n_cells
        if n_pending - n_cells <= max(least_rest, n_chunk // 4):
            n_cells = min(n_pending, n_most)
        if self.forces_beside:
            return n_cells
        return run_length(n_pending, min(max(n_cells, SHORTEST), n_most), others) or (0 if others else n_cells)


def stragglers(slot_ids: Collection[int]) -> set[int]:
    """The slots apart from the longest stretch of slots that follow one another: at most half as many, or none.

    libllama computes separate streams in one pass only where they follow one another.
    """
    stretches: list[list[int]] = []
    for slot_id in sorted(slot_ids):
        if stretches and slot_id == stretches[-1][-1] + 1:
            stretches[-1].append(slot_id)
        else:
            stretches.append([slot_id])
    longest = max(stretches, key=len, default=[])
    apart = set(slot_ids).difference(longest)
    return apart if 2 * len(apart) <= len(longest) else set()


def joined(slot_ids: Collection[int], others: Collection[int]) -> list[int]:
    """Those of the slots `others` that make stretches with `slot_ids`, the nearest to these first.

    So does any beginning of what is returned: libllama computes it in no more passes than `slot_ids` alone.
    """
    found: list[int] = []
    held = set(slot_ids)
    while near := sorted(slot for slot in others if slot not in held and not held.isdisjoint((slot - 1, slot + 1))):
        held.update(near)
        found += near
    return found


CHEAP = 256
"""Up to so many cells before them rows cost about the same either way."""


def portion(n_pending: int, n_computed: int, n_chunk: int, *, tile: int) -> int:
    """Length of the next chunk of a prompt that has `n_pending` cells left behind `n_computed`: near `n_chunk`.

    Chunks are whole tiles. What does not divide comes first, where it is cheap, or else with the last chunk: then that
    is up to twice as long. At least 1.
    """
    if tile == 1:
        return min(n_pending, n_chunk)
    full = max(n_chunk // tile, 1) * tile
    if n_pending <= full:
        return n_pending
    rest = n_pending % full
    if rest and n_computed < CHEAP:
        return rest
    if 0 < rest < tile and n_pending < 2 * full:
        return n_pending
    return full


SHORTEST = 3
"""With room for so many, some run of any prompt of two or more cells obeys run_length."""


def run_length(n_pending: int, n_most: int, others: Collection[int]) -> int:
    """Length of the longest run, up to `n_most` of `n_pending` cells, that leaves no row to be computed alone, or 0.

    `others` are the lengths of the other runs in the batch. Of sequences side by side libllama computes as many rows of
    each as the shortest has, and then what is left of the longer ones: lengths must be equal or two apart. Nor may a
    lone row be left for the next batch. Nobody joins a chunk of a single cell.
    """
    if 1 in others:
        return 0
    for length in range(min(n_pending, n_most), 1, -1):
        if n_pending - length != 1 and all(abs(length - other) != 1 for other in others):
            return length
    return 0
