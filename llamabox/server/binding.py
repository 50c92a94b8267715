"""The listening sockets, made before anything is loaded: a port that is taken must not cost a model load."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable

from llamabox.errors import ListenError
from llamabox.server.listener import BACKLOG


def bind_sockets(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """One listening socket for each host: an address, a name, or the path of a unix socket ending in .sock.

    Port 0 is chosen once and shared by all hosts. Raises ListenError naming the address, and leaves none open.
    """
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for host in hosts:
            sock = _bind_unix(host) if host.endswith(".sock") else _bind_tcp(host, port)
            opened.callback(sock.close)
            sockets.append(sock)
            if sock.family != socket.AF_UNIX:
                port = sock.getsockname()[1]
        opened.pop_all()
    return sockets


def describe_socket(sock: socket.socket, scheme: str = "http") -> str:
    """Where a client would connect."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"


def unix_paths(sockets: Iterable[socket.socket]) -> list[str]:
    """The files that listening made; a closed socket no longer knows its own."""
    return [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, address = _resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:  # so that 0.0.0.0 and :: can stand side by side
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        _listen(sock)
    except OSError as exc:
        sock.close()
        raise _refused(f"{host}:{port}", exc) from exc
    return sock


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    bare = host.strip("[]")
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        try:
            family, _, _, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        except socket.gaierror as exc:
            raise _refused(f"{host}:{port}", exc) from exc
        return family, address
    return (socket.AF_INET6 if version == 6 else socket.AF_INET), (bare, port)


def _bind_unix(path: str) -> socket.socket:
    """A socket file that nobody listens on any more is replaced; one that is in use is an error."""
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
    """From here on the address is taken: a bound socket alone would let a second server bind it too."""
    sock.listen(BACKLOG)
    sock.setblocking(False)


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
