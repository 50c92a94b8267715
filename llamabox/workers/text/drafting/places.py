"""What a draft model's context holds of each text, and how that follows the texts."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np

from llamabox import errors
from llamabox.engine.batch import Run
from llamabox.engine.drafting.drafter import Key
from llamabox.engine.kv.history import History
from llamabox.workers.text.drafting.seams import DraftContext, Guess


@dataclass(slots=True, eq=False)
class Place:
    """A sequence of the draft context: the tokens of its cells, and the text that they follow."""

    seq_id: int
    tokens: array[int] = field(default_factory=lambda: array("q"))
    key: Key | None = None  # of the text; None: it is free, and its cells are there for whoever begins alike
    n_same: int = 0  # leading cells that are known to be the text's
    used: int = 0  # when it was last given to a text


class Places:
    """The ledger of a draft context. It and the context's memory change in one method or not at all.

    Each running text has a place as long as there are as many as slots. Owned by the engine's thread.
    """

    def __init__(self, context: DraftContext) -> None:
        self._context = context
        self._places = [Place(seq_id) for seq_id in range(context.n_sequences)]
        self._of: dict[Key, Place] = {}
        self._n_given = 0

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def follow(self, key: Key, cells: History) -> Place | None:
        """The text's place, which holds a beginning of `cells` afterwards that leaves one cell or more to compute.

        None where others have all places.
        """
        place = self._of.get(key) or self._give(key, cells)
        if place is None:
            return None
        n_most = min(len(place.tokens), len(cells) - 1)
        if place.n_same < n_most:
            here, there = place.tokens[place.n_same : n_most], cells.key_array(place.n_same, n_most)
            place.n_same += n_common(here, there)
        place.n_same = min(place.n_same, n_most)
        self._keep(place, place.n_same)
        return place

    def compute(self, parts: Seq[tuple[Place, Seq[int], bool]]) -> list[Guess | None]:
        """Compute tokens behind what each place holds. A guess at what follows for each part that wants one, in order.

        Raises a DecodeError. Behind NoRoom nothing has changed, behind others all places are empty.
        """
        runs = [Run(place.seq_id, len(place.tokens), tokens, int(wants)) for place, tokens, wants in parts]
        try:
            guesses = self._context.compute(runs)
        except errors.NoRoom:
            raise
        except errors.DecodeError:
            self.clear()
            raise
        for place, tokens, _ in parts:
            place.tokens.extend(tokens)
        return guesses

    def forget(self, key: Key) -> None:
        """The text has ended. Its place is free, and keeps its cells."""
        place = self._of.pop(key, None)
        if place is not None:
            place.key = None

    def truncated(self, key: Key) -> None:
        """Cells were taken out of the middle of a text: which of those here are still its own is to be found out."""
        if (place := self._of.get(key)) is not None:
            place.n_same = 0

    def drop_free(self) -> bool:
        """Empty the places that no text has. False if they are empty."""
        full = [place for place in self._places if place.key is None and place.tokens]
        for place in full:
            self._keep(place, 0)
        return bool(full)

    def clear(self) -> None:
        """Empty all places, whatever is in them."""
        self._context.clear()
        for place in self._places:
            place.n_same = 0
            del place.tokens[:]

    def _give(self, key: Key, cells: History) -> Place | None:
        """A free place for a text that has none: the one longest free, empty ones first, with what others share."""
        free = [place for place in self._places if place.key is None]
        if not free:
            return None
        place = min(free, key=lambda one: (bool(one.tokens), one.used))
        text = cells.key_array(0, len(cells) - 1)
        shared = {one.seq_id: n_common(one.tokens, text) for one in self._places}
        source = max(self._places, key=lambda one: (shared[one.seq_id], one is place))
        if source is not place:
            self._keep(place, 0)
            if n_shared := shared[source.seq_id]:
                self._context.share(source.seq_id, place.seq_id, n_shared)
                place.tokens.extend(source.tokens[:n_shared])
        self._n_given += 1
        place.key, place.n_same, place.used = key, 0, self._n_given
        self._of[key] = place
        return place

    def _keep(self, place: Place, n_cells: int) -> None:
        if n_cells < len(place.tokens):
            self._context.keep(place.seq_id, n_cells)
            del place.tokens[n_cells:]
            place.n_same = min(place.n_same, n_cells)


def n_common(one: array[int], other: array[int]) -> int:
    """Number of leading tokens that are the same in both."""
    limit = min(len(one), len(other))
    if not limit:
        return 0
    differs = np.frombuffer(one, np.int64)[:limit] != np.frombuffer(other, np.int64)[:limit]
    first = int(differs.argmax())
    return first if differs[first] else limit
