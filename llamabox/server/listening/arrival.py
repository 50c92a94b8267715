"""The facts of a request's connection that the listener knows and ASGI has no word for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

KEY = "llamabox.arrival"
"""The key of an Arrival in a connection's `state`, which each of its requests sees."""


def _never() -> bool:
    return False


def _not_taken(piece: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Arrival:
    """Without a listener, as in a test of the bare app, nothing is the case."""

    is_loopback: bool = False  # the listening address is this machine's alone
    is_over: Callable[[], bool] = _never  # it is one more than there should be: only the health is told
    write_piece: Callable[[bytes], bool] = _not_taken  # a short cut for streams; see PatientServer.write_piece


def arrival_of(scope: Scope) -> Arrival:
    arrival = scope.get("state", {}).get(KEY, Arrival())
    assert isinstance(arrival, Arrival)
    return arrival
