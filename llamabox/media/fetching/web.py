"""Fetching files by http and https, for strangers, from inside a network that is not theirs.

A client of our own over h11, which dependencies bring: the connection is made to the very address that was checked, so
no name can mean something else a moment later, and nothing is added that a library would do by default (proxies,
cookies, credentials of the user's, packed bodies).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import h11

import llamabox
from llamabox.errors import QueueFull
from llamabox.media.decoding.link import Unreadable
from llamabox.media.desk import Room
from llamabox.media.fetching.hosts import NAME, Address, AllowedHosts, as_address

MAX_URL = 4096
MAX_REDIRECTS = 3
SECONDS = 10.0
"""For everything: names, redirects, the last byte. A body that trickles does not last longer."""

CONNECT_SECONDS = 3.0
"""For each of a host's addresses."""

N_AT_ONCE = 32
"""Fetches of all requests that are on their way at a time: connections, and hosts that may be slow on purpose."""

MAX_WAITING = 256
"""Fetches that wait for their turn. One more is told to come back."""

N_RESOLVERS = 4
"""Names that are looked up at a time. The threads are the fetcher's own: a name's server may take its time."""

PIECE = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart and checked, but for its addresses."""

    url: str
    scheme: str
    host: str
    port: int
    path: str  # with the query


class Fetcher:
    """Fetches files from the hosts that are allowed. Belongs to the event loop."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        seconds: float = SECONDS,
        n_at_once: int = N_AT_ONCE,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(N_RESOLVERS, thread_name_prefix="media names")
        self._resolve = resolve or self._look_up
        self._tls = tls or (ssl.create_default_context() if allowed else None)
        self._seconds = seconds
        self._turns = asyncio.Semaphore(n_at_once)
        self._max_waiting = max_waiting
        self._n_waiting = 0

    async def fetch(self, url: str, room: Room, limit: int) -> bytearray:
        """The file, which `room` holds. Waits while as many are fetched as may be.

        Raises Unreadable; QueueFull where too many wait; what `room` raises.
        """
        if self._n_waiting >= self._max_waiting:
            raise QueueFull(
                f"{self._n_waiting} files wait to be fetched already, as many as may; try again later or send the file "
                "in base64",
                retry_after=math.ceil(self._seconds),
            )
        self._n_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._n_waiting -= 1
        try:
            return await self._fetch(url, room, limit)
        finally:
            self._turns.release()

    async def _fetch(self, url: str, room: Room, limit: int) -> bytearray:
        data = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                target = self._target(url)
                for _ in range(MAX_REDIRECTS + 1):
                    following = await self._get(target, data, room, limit)
                    if following is None:
                        return data
                    target = self._redirected(target, following)
                raise Unreadable(f"leads on more than {MAX_REDIRECTS} times")
        except TimeoutError as error:
            room.shrink(len(data))
            raise Unreadable(f"did not come within {self._seconds:g} seconds") from error
        except BaseException:
            room.shrink(len(data))
            raise

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _target(self, url: str) -> Target:
        """A URL taken apart. Raises Unreadable for one that is wrong or not allowed."""
        if len(url) > MAX_URL:
            raise Unreadable(f"is a URL of more than {MAX_URL} characters")
        if not url.isprintable() or " " in url or "\\" in url:
            raise Unreadable("is no URL: blanks, control characters and backslashes are written as %20 and the like")
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
            host = (host if host.isascii() else host.encode("idna").decode()).removesuffix(".")
            address = as_address(host)
        except (ValueError, UnicodeError) as error:
            raise Unreadable(f"is no URL: {error}") from error
        if scheme not in PORTS:
            raise Unreadable("leads to a URL that is neither http nor https")
        if parts.username is not None or parts.password is not None:
            raise Unreadable("is a URL with a user's name or password in it, which are not sent")
        if address is None and not NAME.fullmatch(host):
            raise Unreadable("is a URL without a host's name")
        port = PORTS[scheme] if port is None else port
        if not self._allowed.allows(str(address or host), port):
            raise Unreadable(f"names the host {host}:{port}, which --media-url does not allow")
        query = f"?{parts.query}" if parts.query else ""
        path = quote((parts.path or "/") + query, safe="/%:@!$&'()*+,;=~?-._[]")
        return Target(url, scheme, host, port, path)

    def _redirected(self, before: Target, location: str) -> Target:
        target = self._target(urljoin(before.url, location))
        if before.scheme == "https" and target.scheme == "http":
            raise Unreadable("leads from https on to http")
        return target

    async def _get(self, target: Target, data: bytearray, room: Room, limit: int) -> str | None:
        """Ask for the file and append it to `data`; or where a redirect leads to."""
        reader, writer = await self._connect(target)
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=PIECE)
            writer.write(_request(connection, target))
            await writer.drain()
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(PIECE))
                elif isinstance(event, h11.Response):
                    if location := _checked(event, limit):
                        return location
                elif isinstance(event, h11.Data):
                    if len(data) + len(event.data) > limit:
                        raise Unreadable(f"is a file of more than {limit >> 20} MiB")
                    room.grow(len(event.data))
                    data += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return None
        except h11.RemoteProtocolError as error:
            raise Unreadable("is served by a host that breaks off or speaks no HTTP") from error
        except OSError as error:
            raise Unreadable("is served by a host that breaks off") from error
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first address that may be reached and answers."""
        addresses = await self._addresses(target)
        for address in addresses:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._connect_to(address, target)
        raise Unreadable(f"cannot be fetched: {target.host}:{target.port} takes no connection")

    async def _addresses(self, target: Target) -> list[Address]:
        try:
            literal = as_address(target.host)
            names = [target.host] if literal else await self._resolve(target.host, target.port)
            found = [ipaddress.ip_address(name.partition("%")[0]) for name in names]
        except (OSError, UnicodeError) as error:
            raise Unreadable(f"cannot be fetched: the host {target.host} is not known") from error
        allowed = [address for address in found if self._allowed.may_reach(address, target.port)]
        if not allowed:
            raise Unreadable(
                f"cannot be fetched: {target.host} is no address of the open internet; to allow it nevertheless "
                "--media-url must name the address itself"
            )
        return allowed

    async def _connect_to(self, address: Address, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (str(address), target.port))
            is_ours = sock.getsockname()[0] == sock.getpeername()[0]
            if is_ours and not self._allowed.names(str(address), target.port):
                raise OSError("a public address of this machine, whose firewall knows no connections from inside")
            tls = self._tls if target.scheme == "https" else None
            return await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=target.host if tls else None)
        except BaseException:
            sock.close()
            raise

    async def _look_up(self, host: str, port: int) -> list[str]:
        def look_up() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return [str(address[0]) for *_, address in found]

        return await asyncio.wrap_future(self._threads.submit(look_up))


def _request(connection: h11.Connection, target: Target) -> bytes:
    shown = f"[{target.host}]" if ":" in target.host else target.host
    host = shown if target.port == PORTS[target.scheme] else f"{shown}:{target.port}"
    headers = [
        ("Host", host),
        ("User-Agent", f"llamabox/{llamabox.__version__}"),
        ("Accept", "image/*, audio/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    head = connection.send(h11.Request(method="GET", target=target.path, headers=headers))
    end = connection.send(h11.EndOfMessage())
    assert head is not None
    assert end is not None
    return head + end


def _checked(response: h11.Response, limit: int) -> str | None:
    """Where a redirect leads to; None for a file. Raises Unreadable for any other answer."""
    headers = {name: value.decode("latin-1") for name, value in response.headers}
    if response.status_code in REDIRECTS and b"location" in headers:
        return headers[b"location"]
    if response.status_code != 200:
        raise Unreadable(f"cannot be fetched: its host answers {response.status_code}")
    if headers.get(b"content-encoding", "identity").lower() != "identity":
        raise Unreadable("cannot be fetched: its host packs it although it was asked not to")
    declared = headers.get(b"content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise Unreadable(f"is a file of more than {limit >> 20} MiB")
    return None
