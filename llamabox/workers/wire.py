"""How one kind of message becomes a frame's header and payload, and comes out of them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wire:
    """One kind of message. `kind` is its name on the wire, and no two have the same.

    `pack` gives the header's body, which JSON has words for, and the payload. `build` is its inverse; it raises
    KeyError, IndexError, TypeError or ValueError for anything that `pack` does not make.
    """

    kind: str
    pack: Callable[[Any], tuple[Any, bytes]]
    build: Callable[[Any, bytes], Any]


def header_only(kind: str, build: Callable[[Any], Any], body: Callable[[Any], Any] = lambda message: message) -> Wire:
    """A message without a payload. `body` is what of it goes into the header: all of it, if nothing else is said."""

    def checked(body: Any, payload: bytes) -> Any:
        if payload:
            raise ValueError(f"a {kind} message has no payload, but {len(payload)} bytes came with it")
        return build(body)

    return Wire(kind, lambda message: (body(message), b""), checked)
