"""How likely drafted tokens are to come, learnt from those that did."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Seq

from llamabox.engine.drafting.drafter import NEW, Draft, Source

LONGEST = 64
"""Tokens of a draft for which chances are told."""

MATCHES = (1, 2, 3, 4, 5, 7, 10, 15, 23, 40)
"""From these lengths on a match is of another kind."""

PLACES = (0, 1, 2, 3, 4, 6, 9, 14, 21, 32, 48)
"""From these places on a drafted token is of another kind."""

PRIOR = (0.2, 0.25, 0.4, 0.5, 0.58, 0.65, 0.72, 0.8, 0.86, 0.92, 0.96)
"""The chance of a token behind a match of each kind, before any was seen."""

CHANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""From these probabilities on a model's token is of another kind."""

HABITS = (0.3, 0.7, 0.8, 0.87, 0.9, 0.93, 0.95)
"""The chance of a token that followed the last tokens so many times in a row, before any was seen."""

LONG_MATCH = 16
"""A match of so many tokens says more than what followed the last three."""

FORCED_GAIN = 0.7
"""What a drafted token is worth that a grammar forces, in tokens: its row is computed in any case, if not its pass."""

FAITH = 6.0
"""Tokens that it takes to believe what was seen as much as what was expected."""

MEMORY = 128.0
"""Tokens of a kind after which older ones count half."""

FRESH = 4
MATURE = 64
"""Drafts of a kind for which its curve stays as it is: the fewest, when little is known, and the most."""

_MATCH_OF = tuple(bisect_right(MATCHES, n) for n in range(2 * LONGEST + 1))
_PLACE_OF = tuple(bisect_right(PLACES, n) - 1 for n in range(LONGEST))


class _Count:
    """Tokens that were verified after all before them had come, and those of them that came."""

    __slots__ = ("n_came", "n_seen")

    def __init__(self) -> None:
        self.n_came = self.n_seen = 0.0

    def add(self, *, came: bool) -> None:
        if self.n_seen >= MEMORY:
            self.n_seen /= 2
            self.n_came /= 2
        self.n_seen += 1
        self.n_came += came

    def chance(self, expected: float) -> float:
        return (self.n_came + FAITH * expected) / (self.n_seen + FAITH)


class Curve:
    """Of drafts of one kind: the chance that each token and all before it come, and how many come of the first k."""

    __slots__ = ("chances", "falling", "gains", "n_left")

    def __init__(self, chances: Seq[float], n_left: int = 0) -> None:
        """`chances` of each token, provided that those before it came."""
        all_come, gain = 1.0, 0.0
        self.chances = chances
        self.gains = [0.0]
        self.falling: list[float] = []  # the first, negated: ascending, for bisect
        for chance in chances:
            all_come *= chance
            gain += all_come
            self.falling.append(-all_come)
            self.gains.append(gain)
        self.n_left = n_left  # drafts for which it stays

    def under(self, forced: Seq[bool]) -> Curve:
        """The same where a grammar forces some of the tokens: they come if those before them do, and with any draft."""
        if True not in forced:
            return self
        curve = Curve(())
        all_come, gain = 1.0, 0.0
        for is_forced, chance in zip(forced, self.chances, strict=False):
            if not is_forced:
                all_come *= chance
            gain += FORCED_GAIN * all_come if is_forced else all_come
            curve.gains.append(gain)
            curve.falling.append(-all_come)
        return curve


class Survival:
    """Learns by source, match and place; of a model's drafts by the probabilities that it gives. Engine's thread.

    What is seen of a kind is held against what is expected of it: of a place in a draft behind a match, what is seen of
    any drafts behind as many right tokens.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[Source, int, int], _Count] = {}
        self._matches: dict[tuple[Source, int], _Count] = {}
        self._curves: dict[tuple[Source, int], Curve] = {}
        self._habits = [_Count() for _ in HABITS]

    def curve(self, draft: Draft) -> Curve:
        """What the draft promises. To be read only."""
        if draft.chances:
            return Curve([self._model_chance(draft.source, chance) for chance in draft.chances[:LONGEST]])
        curve = self._usual(draft.source, min(draft.n_match, LONGEST))
        if not draft.habits or draft.n_match >= LONG_MATCH:
            return curve
        known = [count.chance(prior) for count, prior in zip(self._habits, HABITS, strict=True)]
        behind = zip(draft.habits, curve.chances, strict=False)
        return Curve([chance if habit == NEW else known[habit] for habit, chance in behind])

    def _usual(self, source: Source, n_match: int) -> Curve:
        """What a draft promises that was found in a text behind a match, whatever its tokens are."""
        key = (source, _MATCH_OF[n_match])
        curve = self._curves.get(key)
        if curve is None or curve.n_left <= 0:
            first = self._places.get((*key, 0))
            n_left = FRESH if first is None else int(min(max(FRESH, first.n_seen / 4), MATURE))
            curve = self._curves[key] = Curve(self._chances(source, n_match), n_left)
        return curve

    def observe(self, draft: Draft, n_verified: int, n_came: int) -> None:
        """Of the first `n_verified` tokens of a draft the first `n_came` came; behind those nothing is known."""
        for place in range(min(n_came + (n_came < n_verified), LONGEST)):
            came = place < n_came
            if draft.chances:
                self._count_chance(draft.source, draft.chances[place]).add(came=came)
                continue
            if place < len(draft.habits) and draft.habits[place] != NEW and draft.n_match < LONG_MATCH:
                self._habits[draft.habits[place]].add(came=came)
                continue
            n_match = min(draft.n_match, LONGEST)
            key = (draft.source, _MATCH_OF[n_match], _PLACE_OF[place])
            count = self._places.get(key)
            if count is None:
                count = self._places[key] = _Count()
            count.add(came=came)
            self._count_match(draft.source, n_match + place).add(came=came)
        curve = self._curves.get((draft.source, _MATCH_OF[min(draft.n_match, LONGEST)]))
        if curve is not None:
            curve.n_left -= 1

    def _chances(self, source: Source, n_match: int) -> list[float]:
        match = _MATCH_OF[n_match]
        by_kind: dict[tuple[int, int], float] = {}
        chances: list[float] = []
        for place in range(LONGEST):
            kind = (_PLACE_OF[place], _MATCH_OF[n_match + place])
            if kind not in by_kind:
                expected = self._count_match(source, n_match + place).chance(PRIOR[kind[1]])
                count = self._places.get((source, match, kind[0]))
                by_kind[kind] = expected if count is None else count.chance(expected)
            chances.append(by_kind[kind])
        return chances

    def _count_match(self, source: Source, n_match: int) -> _Count:
        return self._count(source, _MATCH_OF[min(n_match, 2 * LONGEST)])

    def _count_chance(self, source: Source, chance: float) -> _Count:
        return self._count(source, bisect_right(CHANCES, chance))

    def _count(self, source: Source, kind: int) -> _Count:
        count = self._matches.get((source, kind))
        if count is None:
            count = self._matches[source, kind] = _Count()
        return count

    def _model_chance(self, source: Source, chance: float) -> float:
        return self._count_chance(source, chance).chance(chance)
