"""Time to the first token of a question about a picture, beside llama-server.

    python -m tests.benchmarks.pictures.times --llama-server PATH [--model M --mmproj P] [--sides 96,512,2000]

Both servers stay up, and are asked the same in turn: a question about a picture that was never seen, and another one
about the same picture. Prints a Markdown table of medians, in milliseconds, and the median of the ratios. `floor` is
what the tokens of the second question cost by a bare llama_decode, behind as many tokens as were there: no server that
computes them answers earlier. Without a llama-server there are no ratios.

Both servers run as they do by themselves. The llama-server's OpenMP threads spin for some five milliseconds after an
answer, and hold a processor that the next question to the other one would lack. So each question waits for `--pause`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.model import Model
from llamabox.bindings.spin import spin_briefly
from llamabox.demo import ensure_demo_model
from tests.benchmarks.pictures.files import chat, picture
from tests.e2e.server_process import ServerProcess
from tests.models.media.projectors import write_mmproj
from tests.observed import native
from tests.suite.ports import free_port

PATIENCE = 120.0
QUESTIONS = ("What color is the square?", "What is behind it?")
N_FLOOR = 41


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's time to its first token, and what the server says of its prompt."""

    ms: float
    prompt_ms: float
    n_computed: int
    n_cached: int


def ask(port: int, body: dict[str, Any]) -> Asked:
    """Asks for one token, streamed. The connection is made before."""
    sent = json.dumps({**body, "max_tokens": 1, "stream": True, "timings_per_token": True}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.connect()
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", sent, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    ms = 0.0
    timings: dict[str, Any] = {}
    for line in reply:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        timings = event.get("timings") or timings
        if not ms and any(one["delta"].get("content") or one["finish_reason"] for one in event["choices"]):
            ms = 1e3 * (time.perf_counter() - begun)
    connection.close()
    return Asked(ms, timings["prompt_ms"], timings["prompt_n"], timings.get("cache_n", 0))


@contextmanager
def peer(binary: Path, options: list[str], log: Path) -> Iterator[int]:
    """The port of a llama-server."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen([str(binary), "--port", str(port), *options], stdout=out, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + PATIENCE
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{binary} is not ready:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def compare(ports: list[int], side: int, rounds: int, pause: float) -> list[list[tuple[Asked, ...]]]:
    """For each question and round what each server took. `pause` in seconds."""

    def ask_rested(port: int, body: dict[str, Any]) -> Asked:
        time.sleep(pause)
        return ask(port, body)

    found: list[list[tuple[Asked, ...]]] = [[] for _ in QUESTIONS]
    for number in range(rounds):
        file = picture(1000 * side + number, side)
        for which, question in enumerate(QUESTIONS):
            order = range(len(ports)) if number % 2 else range(len(ports))[::-1]
            took = {at: ask_rested(ports[at], chat(file, question)) for at in order}
            found[which].append(tuple(took[at] for at in range(len(ports))))
    return found


def floor(model_path: Path, threads: int, n_before: int, n_tokens: int) -> float:
    """Milliseconds of a decode of `n_tokens` behind `n_before`."""
    with (
        Model.load(native(), model_path) as model,
        Context(model, ContextParams(n_ctx=512, n_batch=512, n_ubatch=512, n_seq_max=1, n_threads=threads)) as context,
    ):
        batch = NativeBatch(native(), 512)
        batch.extend(list(range(1000, 1000 + n_before)), 0, 0)
        context.decode(batch)
        took = []
        for _ in range(N_FLOOR):
            batch.clear()
            for i in range(n_tokens):
                batch.add(2000 + i, n_before + i, 0, wants_logits=i == n_tokens - 1)
            begun = time.perf_counter()
            context.decode(batch)
            context.logits(n_tokens - 1)
            took.append(1e3 * (time.perf_counter() - begun))
            context.memory.seq_rm(0, n_before, -1)
    return statistics.median(took)


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--model", type=Path, help="default: the demo model")
    parser.add_argument("--mmproj", type=Path, help="default: one that sees colours, of no cost")
    parser.add_argument("--sides", default="96,512,2000", help="pixels")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=20.0, help="milliseconds before each question")
    asked = parser.parse_args(given)
    model = asked.model or ensure_demo_model()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        mmproj = asked.mmproj or write_mmproj(folder / "mmproj.gguf", model, audio=False)
        options = ["-m", str(model), "--mmproj", str(mmproj), "-c", "8192", "-np", "4", "-t", str(asked.threads)]
        ports = [stack.enter_context(ServerProcess(folder / "log", *options)).port]
        if asked.llama_server:
            ports.append(stack.enter_context(peer(asked.llama_server, options, folder / "peer.log")))
        spin_briefly(os.environ)  # for `floor`, as the worker does; the servers have the user's own environment
        for port in ports:
            for question in QUESTIONS:
                ask(port, chat(picture(1, 64), question))
        print("| side | question | llamabox, ms | its prompt | floor | computed | llama-server | its prompt | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for side in map(int, asked.sides.split(",")):
            for which, pairs in enumerate(compare(ports, side, asked.rounds, asked.pause / 1e3)):
                print(row(side, which, pairs, model, asked.threads), flush=True)
    return 0


def row(side: int, which: int, pairs: list[tuple[Asked, ...]], model: Path, threads: int) -> str:
    ours = pairs[-1][0]
    cells = [str(side), ("first", "second")[which]]
    for at in range(len(pairs[0])):
        cells.append(f"{statistics.median(pair[at].ms for pair in pairs):.1f}")
        cells.append(f"{statistics.median(pair[at].prompt_ms for pair in pairs):.1f}")
        if at == 0:
            bare = f"{floor(model, threads, ours.n_cached, ours.n_computed):.1f}" if which else ""
            cells += [bare, str(ours.n_computed)]
    if len(pairs[0]) > 1:
        cells.append(f"{statistics.median(pair[0].ms / pair[1].ms for pair in pairs):.2f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
