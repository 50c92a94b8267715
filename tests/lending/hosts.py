"""Machines for a test: network namespaces, each with a wire (a veth pair) to this one. Needs root and `ip`."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

PORT = 50052
WITHIN = 30.0
"""Seconds; far more than anything here takes, so that only a hang fails."""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@dataclass
class Host:
    """One machine: its namespace, its address, and the end of its wire that is here."""

    name: str
    address: str
    near: str
    log: Path
    server: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{PORT}"

    def serve(self) -> None:
        """Run an RPC server there, again and again as a service manager does; returns when it listens.

        ggml's own dies of SIGPIPE when a connection breaks while it has something to send.
        """
        command = ["ip", "netns", "exec", self.name, "sh", "-c", f"while :; do {shlex.join(self.server)}; done"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + WITHIN
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection((self.address, PORT), timeout=WITHIN):
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as when the machine's memory runs out."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def wire(self, state: str) -> None:
        """`down` at the far end, so that routes here stay as they are: nobody is told. `up` again."""
        ip("-n", self.name, "link", "set", "eth0", state)


class Hosts:
    """Makes the machines on entry, and takes them away on exit whatever happened."""

    def __init__(self, folder: Path, server: tuple[str, ...], n: int) -> None:
        """`server`: the words of a command that listens on PORT."""
        mark = os.getpid() % 100_000  # no two test runs at once make the same ones
        net = f"10.{200 + mark % 50}.{mark % 250}"
        self._hosts = [
            Host(f"lb{mark}h{i}", f"{net}.{4 * i + 2}", f"lb{mark}w{i}", folder / f"rpc{i}.log", server)
            for i in range(n)
        ]
        self._net = net

    def __enter__(self) -> Self:
        try:
            for i, host in enumerate(self._hosts):
                self._make(host, f"{self._net}.{4 * i + 1}")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def __getitem__(self, index: int) -> Host:
        return self._hosts[index]

    @property
    def endpoints(self) -> str:
        """As --rpc wants them."""
        return ",".join(host.endpoint for host in self._hosts)

    def serve(self) -> None:
        for host in self._hosts:
            host.serve()

    def _make(self, host: Host, here: str) -> None:
        ip("netns", "add", host.name)
        ip("link", "add", host.near, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        ip("address", "add", f"{here}/30", "dev", host.near)
        ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", "eth0")
        for words in (("-n", host.name, "link", "set", "lo", "up"), ("-n", host.name, "link", "set", "eth0", "up")):
            ip(*words)
        ip("link", "set", host.near, "up")

    def _remove(self) -> None:
        for host in self._hosts:
            host.kill()
            for words in (("link", "del", host.near), ("netns", "del", host.name)):
                subprocess.run(["ip", *words], capture_output=True, check=False)
