"""The listening sockets, made before anything is loaded: a port that is taken must not cost a model load."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable

from llamabox.errors import ListenError

Address = tuple[socket.AddressFamily, str]

BACKLOG = 1024

ANY = "*"
"""The host that stands for every address of this machine."""


class NotHere(ListenError):
    """The address is not of this machine, or of a kind that this machine does not have."""


def bind_sockets(hosts: Iterable[str], port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """The listening sockets for hosts: addresses, names, the paths of unix sockets ending in .sock, or `*` for all.

    A name is listened on at all of its addresses that are this machine's. `::` takes IPv4 as well, unless an IPv4
    address is named beside it. Port 0 is chosen once and shared by all. With `reuse_port` other processes
    of this user that ask for it too may listen on the same port. Raises ListenError naming the address, and leaves none
    open.
    """
    named: dict[Address | str, str] = {}  # each address once, as of localhost beside 127.0.0.1
    for host in hosts:
        for address in [host] if host.endswith(".sock") else _resolve(host):
            named.setdefault(address, host)
    takes_ipv4 = not any(address[0] == socket.AF_INET for address in named)
    missing: dict[str, ListenError] = {}
    listened: set[str] = set()
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for address, host in named.items():
            try:
                if isinstance(address, str):
                    sock = _bind_unix(host)
                else:
                    sock = _bind_tcp(host, *address, port, takes_ipv4=takes_ipv4, reuse_port=reuse_port)
            except NotHere as error:
                missing[host] = error
                continue
            opened.callback(sock.close)
            sockets.append(sock)
            if sock.family != socket.AF_UNIX:
                port = sock.getsockname()[1]
            listened.add(host)
        for host, reason in missing.items():
            if host not in listened:
                raise reason
        opened.pop_all()
    return sockets


def describe_socket(sock: socket.socket, scheme: str = "http") -> str:
    """The URL by which a client would connect."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"


def unix_paths(sockets: Iterable[socket.socket]) -> list[str]:
    """The files that listening made; a closed socket no longer knows its own."""
    return [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]


def _bind_tcp(
    host: str, family: socket.AddressFamily, bare: str, port: int, *, takes_ipv4: bool, reuse_port: bool
) -> socket.socket:
    where = f"{host}:{port}"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise NotHere(_refused(where, exc).message) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_ipv4)
        sock.bind((bare, port))
        _listen(sock)
    except OSError as exc:
        sock.close()
        refused = _refused(where, exc)
        raise (NotHere(refused.message) if exc.errno == errno.EADDRNOTAVAIL else refused) from exc
    return sock


def _resolve(host: str) -> list[Address]:
    """The addresses of a host. Raises ListenError for a name that has none."""
    if host == ANY:
        return [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]
    bare = host.strip("[]")
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        try:
            found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise _refused(host, exc) from exc
        except UnicodeError as exc:  # of the codec for names in other scripts
            raise ListenError(f"cannot listen on {host}: it is neither an address nor a name") from exc
        return [(family, str(address[0])) for family, _, _, _, address in found]
    return [(socket.AF_INET6 if version == 6 else socket.AF_INET, bare)]


def _bind_unix(path: str) -> socket.socket:
    """Replace a socket file without a listener; one in use is an error."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode) and not _is_listening(path):
            os.unlink(path)
        sock.bind(path)
        _listen(sock)
    except OSError as exc:
        sock.close()
        raise _refused(path, exc) from exc
    return sock


def _refused(where: str, exc: OSError) -> ListenError:
    return ListenError(f"cannot listen on {where}: {exc.strerror or exc}")


def _listen(sock: socket.socket) -> None:
    """Listen, which takes the address: a bound socket alone would let a second server bind it too."""
    sock.listen(BACKLOG)
    sock.setblocking(False)


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
