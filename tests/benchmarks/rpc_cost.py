"""What it costs to compute on other machines: `python -m tests.benchmarks.rpc_cost ggml-rpc-server [model.gguf]`.

Prints a Markdown table of tokens per second for 1 and 8 streams: all on this machine, half of the layers on an RPC
server over loopback, and over a veth pair with a millisecond of delay. The delay is tc netem's where the kernel has it;
elsewhere a relay between the two holds every piece back for half a millisecond each way. Needs root for the veth pair.
All of it runs on the processors of one machine, one for each side: only the cost of the way is measured, no gain.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llamabox.demo import ensure_demo_model
from tests.e2e.server_process import ServerProcess
from tests.lending.hosts import PORT, Host, Hosts
from tests.suite.ports import free_port

HALF_DELAY = 0.0005
"""Seconds, each way."""

CLIENTS = (1, 8)
N_GPU_LAYERS = "16"  # of the demo model's 31
PIECE = 1 << 18

SHAPE = ("--requests", "1", "--max-tokens", "32", "--prompt-words", "16")


class Relay:
    """Carries one TCP connection at a time to `target`, every piece HALF_DELAY late. Owns a thread until `close()`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with near, socket.create_connection(self._target) as far:
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Until either end closes."""
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
                for key, _ in selector.select(patience):
                    assert isinstance(key.fileobj, socket.socket)
                    piece = key.fileobj.recv(PIECE)
                    if not piece:
                        return
                    waiting.append((time.monotonic() + HALF_DELAY, key.data, piece))
                while waiting and waiting[0][0] <= time.monotonic():
                    _, to, piece = waiting.popleft()
                    to.sendall(piece)


@contextmanager
def loopback(program: Path) -> Iterator[str]:
    """The endpoint of an RPC server on this machine."""
    port = free_port()
    with subprocess.Popen([program, "-p", str(port), "-t", "1"], stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def far_away(program: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The endpoint of one behind a millisecond of delay, and where that comes from."""
    with Hosts(folder, (str(program), "-H", "0.0.0.0", "-p", str(PORT), "-t", "1"), n=1) as hosts:
        hosts.serve()
        if netem(hosts[0]):
            yield hosts[0].endpoint, "tc netem"
            return
        host, _, port = hosts[0].endpoint.partition(":")
        relay = Relay((host, int(port)))
        try:
            yield relay.endpoint, "a relay, for want of tc netem"
        finally:
            relay.close()


def netem(host: Host) -> bool:
    """Delay both ends of the wire; False where the kernel cannot."""
    delay = ("root", "netem", "delay", f"{HALF_DELAY * 1e6:g}us")
    here = subprocess.run(["tc", "qdisc", "add", "dev", host.near, *delay], capture_output=True, check=False)
    there = ["tc", "-n", host.name, "qdisc", "add", "dev", "eth0", *delay]
    return here.returncode == 0 and subprocess.run(there, capture_output=True, check=False).returncode == 0


def measure(folder: Path, model: Path, *words: str) -> list[float]:
    """Tokens per second for each of CLIENTS."""
    arguments = ("-m", str(model), "-np", "8", "-c", "4096", "-t", "1", *words)
    with ServerProcess(folder / "box.log", *arguments) as server:
        report = folder / "bench.json"
        clients = ",".join(map(str, CLIENTS))
        command = [sys.executable, "-m", "llamabox", "bench", "--url", server.url, "--clients", clients, *SHAPE]
        subprocess.run([*command, "--json", str(report)], check=True, stdout=sys.stderr)
        return [run["tok_s"] for run in json.loads(report.read_text())["runs"]]


def main(program: Path, model: Path) -> int:
    folder = Path(tempfile.mkdtemp())
    rows = [("this machine alone", measure(folder, model))]
    with loopback(program) as endpoint:
        split = ("--rpc", endpoint, "-ngl", N_GPU_LAYERS)
        rows.append(("half of the layers over loopback", measure(folder, model, *split)))
    with ExitStack() as stack:
        endpoint, how = stack.enter_context(far_away(program, folder))
        split = ("--rpc", endpoint, "-ngl", N_GPU_LAYERS)
        rows.append((f"half of the layers over veth and 1 ms ({how})", measure(folder, model, *split)))
    shutil.rmtree(folder)
    print("| tokens per second | " + " | ".join(f"{n} stream{'s' * (n > 1)}" for n in CLIENTS) + " |")
    print("| --- |" + " --- |" * len(CLIENTS))
    for name, speeds in rows:
        print(f"| {name} | " + " | ".join(f"{speed:.1f}" for speed in speeds) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else ensure_demo_model(progress=False)))
