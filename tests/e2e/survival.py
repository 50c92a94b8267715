"""What must hold after every fault, and what a process holds on to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server_process import ServerProcess

CANARY = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 12,
    "temperature": 0,
}


def unharmed(server: ServerProcess) -> Iterator[ServerProcess]:
    """For a fixture: afterwards alive, healthy, no slot leaked, the same worker, ledger clean, the canary right."""
    worker = server.worker_pid()
    yield server
    assert server.health() == 200
    server.wait_idle()
    answer = server.ok("/v1/chat/completions", CANARY)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert server.worker_pid() == worker, "the worker was restarted"
    assert "KV ledger" not in server.log
    assert "Traceback" not in server.log


def metric(server: ServerProcess, name: str) -> float:
    """The value of an unlabelled sample; needs --metrics."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return next(s.value for family in families for s in family.samples if s.name == name)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0, pause: float = 0.02) -> None:
    """Until `condition` holds: for what can only be polled, being another process' state."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(pause)


def processor_seconds(pid: int) -> float:
    """That the process has used so far, all its threads together; as fine as the system's ticks, of 10 ms mostly."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def n_files(pid: int) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Bytes of anonymous memory in use: what a leak grows, without the mapped model."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel tells no RssAnon")
