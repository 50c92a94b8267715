"""Chats of megabytes are taken in without anybody else waiting for them.

What a wait is made of counts, not how long a busy machine takes over it: the processor time that the server and its
worker use for others meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import processor_seconds
from tests.models.gguf_edit import with_strings

N_LARGE = 8
N_SLOW = 2
"""Of those that take the longest: more than are read at once (N_LONG), so that one waits its turn."""
TRIES = 3
"""A wait that the large bodies make is there each time, one that the machine makes is not."""

ENOUGH = 0.150
"""Seconds that nobody minds."""

FELT = 0.5
"""The share of their time that others may spend in longer waits. Where the large bodies hold them up it is nearly all.
"""

SHORT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
STREAM = {"prompt": "A short history of bread:", "n_predict": 1000, "temperature": 0, "ignore_eos": True}

SLOW = (
    "{% for m in messages %}{% for n in range(300) %}{% endfor %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
"""A template that takes about ten microseconds for each message."""


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("large")
    file = with_strings(model, folder / "slow.gguf", {"tokenizer.chat_template": SLOW})
    with ServerProcess(folder / "log", "-m", str(file), "-c", "4096", "-np", "2", "--slots") as server:
        yield server
        assert "Traceback" not in server.log
    file.unlink()


def body_of(messages: bytes) -> bytes:
    return b'{"max_tokens":1,"messages":[' + messages + b"]}"


Waits = dict[str, list[float]]
"""Seconds that each chunk of a stream, /health and short chat took, as Stopwatch counts them."""


class Stopwatch:
    """Counts seconds of the clock, but no more than both processes have used of the processor meanwhile."""

    def __init__(self, server: ServerProcess) -> None:
        self._pids = (server.process.pid, server.worker_pid())
        self._begun = self._read()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._begun = self._begun, self._read()
        return min(now - then for now, then in zip(self._begun, before, strict=True))

    def _read(self) -> tuple[float, float]:
        return time.monotonic(), sum(map(processor_seconds, self._pids))


def waits(server: ServerProcess, until: Callable[[], bool]) -> Waits:
    """For at least two seconds and until it holds."""
    begun = time.monotonic()
    is_over = threading.Event()
    found: Waits = {"stream": [], "health": [], "chat": []}

    def ask(name: str, path: str, body: Any) -> None:
        watch = Stopwatch(server)
        with httpx.Client(base_url=server.url, timeout=120) as http:
            while not is_over.is_set():
                watch.lap()
                reply = http.post(path, json=body) if body else http.get(path)
                found[name].append(watch.lap())
                assert reply.status_code == 200, reply.text

    asking = [
        threading.Thread(target=ask, args=("health", "/health", None)),
        threading.Thread(target=ask, args=("chat", "/v1/chat/completions", SHORT)),
    ]
    for thread in asking:
        thread.start()
    watch = Stopwatch(server)
    while not until() or time.monotonic() < begun + 2:
        for i, _ in enumerate(server.stream("/completion", STREAM)):
            wait = watch.lap()
            if i:
                found["stream"].append(wait)
            if until() and time.monotonic() > begun + 2:
                break
    is_over.set()
    for thread in asking:
        thread.join()
    return found


def held_up(quiet: Waits, during: Waits) -> float:
    """The share of the time that somebody spent in waits longer than twice the longest quiet one and ENOUGH."""
    shares = []
    for name, times in during.items():
        limit = ENOUGH + 2 * max(quiet[name])
        shares.append(sum(wait for wait in times if wait > limit) / max(sum(times), limit))
    return max(shares)


SEND = """
import http.client, pathlib, sys, threading
body = pathlib.Path(sys.argv[2]).read_bytes()
def send():
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=300)
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    reply = connection.getresponse()
    print(reply.status, reply.read().decode(), flush=True)
threads = [threading.Thread(target=send) for _ in range(int(sys.argv[3]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
"""A process of its own: threads beside the clients that measure would hold these up."""


def beside(server: ServerProcess, body: Path, n_large: int) -> tuple[Waits, list[str]]:
    """The same while clients send `body`, and what they got."""
    command = [sys.executable, "-c", SEND, str(server.port), str(body), str(n_large)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sending:
        found = waits(server, lambda: sending.poll() is not None)
        assert sending.stdout is not None
        return found, sending.stdout.read().splitlines()


BODIES = {
    "one text": body_of(b'{"role":"user","content":"' + b"word " * (7 << 18) + b'"}'),
    "many messages": body_of(b",".join([b'{"role":"user","content":"x"}'] * 240_000)),
    "empty messages": body_of(b",".join([b'{"role":"user","content":""}'] * 30_000)),
    "thoughts": body_of(
        b'{"role":"assistant","content":"","reasoning_content":"' + b"word " * (7 << 18) + b'"},'
        b'{"role":"user","content":"x"}'
    ),
}
"""Of about seven MiB. What a template leaves out, such as a thought, does not count against the context."""


@pytest.mark.parametrize("kind", BODIES)
def test_nobody_waits_for_a_large_chat(server: ServerProcess, kind: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(BODIES[kind])
    n_large = N_SLOW if kind.endswith("messages") else N_LARGE
    tries: list[float] = []
    while len(tries) < TRIES and min(tries, default=1) > FELT:
        quiet = waits(server, lambda: True)
        during, replies = beside(server, body, n_large)
        print(kind, {name: f"{max(quiet[name]) * 1e3:.0f} -> {max(during[name]) * 1e3:.0f} ms" for name in quiet})
        assert len(replies) == n_large
        for reply in replies:
            assert reply.startswith("200" if kind == "thoughts" else "400"), reply
            assert ("exceed_context_size_error" in reply) == (kind != "thoughts"), reply
        tries.append(held_up(quiet, during))
    body.unlink()
    assert min(tries) <= FELT, f"others spent {min(tries):.0%} of the time waiting"


def test_a_slow_template_has_time_for_many_messages(server: ServerProcess) -> None:
    """1,200 of them, each with its processor time, and short chats go on beside it."""
    messages = [{"role": "user", "content": ""}] * 1_200
    start = time.monotonic()
    begun = threading.Event()
    prompts: list[Any] = []

    def render() -> None:
        begun.set()
        with httpx.Client(base_url=server.url, timeout=300) as http:
            prompts.append(http.post("/apply-template", json={"messages": messages}))

    rendering = [threading.Thread(target=render) for _ in range(4)]
    for thread in rendering:
        thread.start()
    begun.wait()
    server.ok("/v1/chat/completions", SHORT)
    for thread in rendering:
        thread.join()
    assert [reply.status_code for reply in prompts] == [200] * 4, prompts[0].text
    assert time.monotonic() > start
