"""`llamabox health`: asks a server of this machine how it is, as a container or a service manager wants to know.

The server's own options and environment say where it listens. Without options those of process 1 count, which in a
container is the server: a health check is written once, before a port is named.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from llamabox.errors import OptionsError
from llamabox.options.commandline import compose, compose_rpc, parse
from llamabox.server.listening.config import ListenConfig

SECONDS = 10.0
PROCESS_1 = Path("/proc/1/cmdline")
ANY = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "": "127.0.0.1", "::": "::1"}
"""The loopback address of a server that listens on every address."""


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Print a line. Returns the exit status: 0 where the server is well."""
    try:
        parsed = parse(argv or options_of(PROCESS_1), environ)
        text, listen, _ = compose(parsed)
        lending = compose_rpc(parsed, text)
    except OptionsError as error:
        print(f"error: {error.message}")
        return 1
    where = f"{listen.hosts[0]} port {listen.port}" if lending is None else f"{lending.host} port {lending.port}"
    try:
        if lending is not None:
            socket.create_connection((ANY.get(lending.host, lending.host), lending.port), SECONDS).close()
            print("ok: the RPC server takes connections")
            return 0
        status, said = ask(listen)
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        print(f"error: nobody answers at {where}: {getattr(error, 'strerror', None) or error}")
        return 1
    print(f"{'ok' if status == 200 else 'error'}: {where} answers {status}: {said}")
    return 0 if status == 200 else 1


def options_of(cmdline: Path) -> list[str]:
    """The options in a `cmdline` (/proc/PID/cmdline) of llamabox, or of an init that starts it; else none."""
    try:
        words = cmdline.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return []
    for i, word in enumerate(words):
        if word.rpartition("/")[2] == "llamabox":  # "-m llamabox" as well
            return words[i + 1 :]
    return []


def ask(listen: ListenConfig) -> tuple[int, str]:
    """Status and text of GET /health. Straight to the address, past every proxy. Raises OSError, HTTPException."""
    connection = connection_to(listen)
    try:
        connection.request("GET", f"{listen.api_prefix}/health")
        response = connection.getresponse()
        return response.status, response.read(4096).decode(errors="replace").strip()
    finally:
        connection.close()


def connection_to(listen: ListenConfig) -> http.client.HTTPConnection:
    host = listen.hosts[0]
    if host.endswith(".sock"):
        return UnixConnection(host)
    host = ANY.get(host, host)
    if listen.ssl_cert_file is None:
        return http.client.HTTPConnection(host, listen.port, timeout=SECONDS)
    # The certificate is for the name that others call the server by.
    return http.client.HTTPSConnection(host, listen.port, timeout=SECONDS, context=ssl._create_unverified_context())


class UnixConnection(http.client.HTTPConnection):
    """To a socket that is a file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
