"""What requests leave for later ones."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_AGE = 24 * 3600.0
"""Seconds since somebody last asked for a thing."""

T = TypeVar("T")


@dataclass(slots=True)
class _Place(Generic[T]):
    value: T
    n_bytes: int
    used: float  # seconds on the shelf's clock


class Shelf(Generic[T]):
    """Values by name, bounded in bytes and age; those unused for longest go first. Belongs to the event loop.

    Each is there only for those who show the API key of whoever left it.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Without bytes nothing is kept."""
        self.max_bytes: Final = max_bytes
        self.n_bytes = 0
        self._clock = clock
        self._places: OrderedDict[tuple[str, str], _Place[T]] = OrderedDict()

    def put(self, asker: str, name: str, value: T, n_bytes: int) -> bool:
        """Keep a value, in place of one of that name. False: it is larger than all the room there is."""
        self.drop(asker, name)
        if n_bytes > self.max_bytes:
            return False
        self._places[asker, name] = _Place(value, n_bytes, self._clock())
        self.n_bytes += n_bytes
        self._tidy()
        return True

    def get(self, asker: str, name: str) -> T | None:
        """The value, which is used thereby."""
        self._tidy()
        place = self._places.get((asker, name))
        if place is None:
            return None
        place.used = self._clock()
        self._places.move_to_end((asker, name))
        return place.value

    def drop(self, asker: str, name: str) -> bool:
        """Forget a value. False: there was none."""
        place = self._places.pop((asker, name), None)
        if place is None:
            return False
        self.n_bytes -= place.n_bytes
        return True

    def all_of(self, asker: str) -> Iterator[T]:
        """The values that an asker may have, those used last first."""
        return (place.value for (owner, _), place in reversed(self._places.items()) if owner == asker)

    def _tidy(self) -> None:
        oldest = self._clock() - MAX_AGE
        while self._places:
            key, place = next(iter(self._places.items()))
            if self.n_bytes <= self.max_bytes and place.used >= oldest:
                return
            self.drop(*key)
