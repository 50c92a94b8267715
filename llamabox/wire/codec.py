"""How one kind of message becomes a frame's header and payload, and comes out of them again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
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


def configuring(kind: str, build: Callable[[dict[str, Any]], Any]) -> Wire:
    """A message with a `config`, among whose texts are paths. Those need not be UTF-8: the payload is JSON of Python's
    own, which keeps the surrogates that stand for other bytes."""
    return Wire(
        kind,
        lambda message: ({}, json.dumps(asdict(message.config)).encode()),
        lambda body, payload: build(json.loads(payload)),
    )


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as a text that any message can carry: behind a NUL its bytes, where they are not UTF-8."""
    text = os.fspath(path)
    return text if text.isprintable() else "\0" + os.fsencode(text).decode("latin-1")


def path_of(text: str) -> str:
    """The inverse of `path_text`."""
    return os.fsdecode(text[1:].encode("latin-1")) if text.startswith("\0") else text
