"""The bodies of requests: read within bounds of size, of time and of memory for all of them together, and unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from llamabox.errors import BodyTooLarge, InvalidRequest, Unavailable
from llamabox.server.http.disconnect import ClientGone

SMALL = 1 << 20
"""Bytes of a body that large ones do not keep out: there is an eighth more room for such."""

BREATH = 0.002
"""Seconds between two pieces of several large bodies."""

STEP = 1 << 20
"""Bytes that are unpacked at a time; the event loop gets its turn in between."""


class BodyBudget:
    """Bytes that the bodies of all requests may hold together, from their first byte until their answer is made.

    A body counts as it comes, not as its header says: else a few promises would keep everybody out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turn = asyncio.Lock()
        self.n_held = 0

    async def turn(self) -> None:
        """Wait for the next piece of a large body: of all large ones, a round of the event loop takes in one piece.

        A piece costs a millisecond or two, most of them for memory that is written for the first time. Sixteen in each
        round would let everybody wait 30 ms for each thing that happens on a socket, of which a request has a dozen.
        Several bodies leave half of the time to others.
        """
        is_contended = self._turn.locked()
        async with self._turn:
            await asyncio.sleep(BREATH if is_contended else 0)

    def take(self, n_bytes: int, lease: Lease) -> None:
        """Count more bytes for a lease. Raises Unavailable where there is no room for them."""
        limit = self._limit if lease.n_bytes + n_bytes > SMALL else self._limit + self._limit // 8
        if self.n_held + n_bytes > limit:
            raise Unavailable(
                f"the bodies of all requests together hold the {limit} bytes that they may; try again later",
                retry_after=2,
            )
        self.n_held += n_bytes


class Lease:
    """The bytes of the budget that one request holds: its body, until the answer is made, and decoded media, which its
    prompt has until the end. A context manager: its end releases them.
    """

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.n_bytes = 0
        self.n_kept = 0  # of n_bytes: those that release_body leaves

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    async def turn(self) -> None:
        """Wait for the next piece of a large body; see BodyBudget."""
        await self._budget.turn()

    def grow(self, n_bytes: int) -> None:
        """Hold more bytes. Raises Unavailable where there is no room for them."""
        self._budget.take(n_bytes, self)
        self.n_bytes += n_bytes

    def shrink(self, n_bytes: int) -> None:
        """Give some of the bytes back."""
        assert n_bytes <= self.n_bytes
        self._budget.n_held -= n_bytes
        self.n_bytes -= n_bytes

    def take_over(self) -> Lease:
        """A lease of its own for the bytes that `release_body` leaves, for work that outlives the request."""
        other = Lease(self._budget)
        other.n_bytes = other.n_kept = self.n_kept
        self.n_bytes -= self.n_kept
        self.n_kept = 0
        return other

    def release_body(self) -> None:
        """Give back all bytes but n_kept. Idempotent."""
        self.shrink(self.n_bytes - self.n_kept)

    def release(self) -> None:
        """Give all bytes back. Idempotent."""
        self.n_kept = 0
        self.release_body()


async def read_body(
    scope: Scope, receive: Receive, lease: Lease, *, limit: int, gap: float, seconds: float
) -> bytearray:
    """The whole body, unpacked: at most `limit` bytes, at most `gap` seconds between two pieces, `seconds` in all.

    Raises BodyTooLarge (at once where the header says so), Unavailable where all bodies hold too much, InvalidRequest
    for a client that sends too slowly or packs in a way that is not read, ClientGone.
    """
    headers = Headers(scope=scope)
    gzip = _Gzip() if _is_packed(headers) else None
    declared = headers.get("content-length", "")
    n_declared = int(declared) if declared.isdigit() else 0
    if n_declared > limit:
        raise _too_large(limit)
    time = asyncio.get_running_loop().time
    deadline = time() + seconds  # else a byte now and then would keep a connection for ever
    body = bytearray()  # not a list: millions of chunks of one byte would take forty times their size
    more = True
    while more:
        if max(lease.n_bytes, n_declared) > SMALL:
            await lease.turn()
        try:
            async with asyncio.timeout_at(min(time() + gap, deadline)):
                message = await receive()
        except TimeoutError:
            if time() >= deadline:
                raise InvalidRequest(f"the request body did not arrive within {seconds:g} seconds") from None
            raise InvalidRequest(f"the request body stopped arriving for {gap:g} seconds") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        data = message.get("body", b"")
        pieces: Iterable[bytes] = (data,) if gzip is None else gzip.unpack(data)
        for piece in pieces:
            if len(body) + len(piece) > limit:
                raise _too_large(limit)
            lease.grow(len(piece))
            body += piece
            if len(piece) == STEP:
                await asyncio.sleep(0)
        more = message.get("more_body", False)
    if gzip is not None:
        gzip.end()
    return body


class _Gzip:
    """Unpacks as the pieces come, so that a bomb is found out at the limit."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._has_begun = False

    def unpack(self, data: bytes) -> Iterator[bytes]:
        self._has_begun = self._has_begun or bool(data)
        while data:
            if self._inflate.eof:
                raise InvalidRequest("the request body goes on behind the end of its gzip stream")
            try:
                piece = self._inflate.decompress(data, STEP)
                while len(piece) == STEP:
                    yield piece
                    piece = self._inflate.decompress(self._inflate.unconsumed_tail, STEP)
            except zlib.error as exc:
                raise InvalidRequest(f"the request body is not valid gzip: {exc}") from exc
            yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def end(self) -> None:
        """InvalidRequest for a body that was cut off."""
        if self._has_begun and not self._inflate.eof:
            raise InvalidRequest("the request body is cut off: its gzip stream does not end")


def _is_packed(headers: Headers) -> bool:
    codings = [one.strip().lower() for one in ",".join(headers.getlist("content-encoding")).split(",")]
    match [one for one in codings if one not in ("", "identity")]:
        case []:
            return False
        case ["gzip" | "x-gzip"]:
            return True
        case others:
            words = ", ".join(others)[:40]
            raise InvalidRequest(
                f"the request body is encoded with {words}, which is not read; send it plain or as gzip"
            )


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than the {limit} bytes allowed")
