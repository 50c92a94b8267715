"""The dearest requests there are, and what somebody else's stream and /health see of each.

`python -m tests.e2e.law.neighbours` prints a table of all of them, quiet → during.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llamabox.demo import ensure_demo_model
from llamabox.engine.request import MAX_BIASES
from llamabox.server.fields import generation as params
from llamabox.server.fields import logprobs as logprob_fields
from llamabox.server.fields import prompt as prompt_fields
from llamabox.server.fields import sampling as sampling_fields
from llamabox.server.generation import running
from tests.e2e.law.processors import Use
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import resident

QUIET = 1.0
"""Seconds for which the stream is watched alone."""

LONGEST = 60.0
"""Seconds after which what still runs of an attack is left."""

FILL_IN = {"pre": 11, "suf": 12, "mid": 13}
"""Tokens for /infill, which the demo model lacks."""

LONGEST_LITERAL = 8000
"""Characters that a grammar may force: llguidance has 10,000 states for them."""

WORDS = "the sea was calm and the old captain told us of islands that no map had ever shown "


Attack = Callable[[], list[int]]
"""Sends what was made ready before, and returns the statuses of the answers."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Longest gap of the stream and slowest answer of /health, in milliseconds; growth of both processes, in MiB.

    `others` is the part of the machine's processor time that processes had which are not the test's.
    """

    gap: float
    health: float
    server_mib: float = 0.0
    worker_mib: float = 0.0
    others: float = 0.0


class Witness:
    """A running witness.py. Ends with the `with` block.

    Its notes are kept in memory: where slot files are written the kernel may hold up whoever writes to a disk.
    """

    def __init__(self, port: int) -> None:
        self._file = open(os.memfd_create("witness"), "w+")  # noqa: SIM115 (closed by __exit__)
        script = Path(__file__).with_name("witness.py")
        self._process = subprocess.Popen([sys.executable, str(script), str(port)], stdout=self._file)

    def wait(self) -> None:
        """Until the stream runs."""
        deadline = time.monotonic() + LONGEST
        while self._read()[0] == []:
            assert self._process.poll() is None
            assert time.monotonic() < deadline, "the stream never began"
            time.sleep(0.02)

    def between(self, start: float, stop: float) -> Seen:
        """What was seen from `start` to `stop`. A stream that has said nothing since counts up to `stop`."""
        tokens, answers = self._read()
        assert self._process.poll() is None, "the stream ended"
        marks = [*tokens, max(stop, tokens[-1])]
        gaps = [b - a for a, b in itertools.pairwise(marks) if b >= start and a <= stop]
        slow = [took for at, took in answers if at + took >= start and at <= stop]
        return Seen(1e3 * max(gaps), 1e3 * max(slow, default=stop - start))

    def _read(self) -> tuple[list[float], list[tuple[float, float]]]:
        position = self._file.tell()
        self._file.seek(0)
        rows = [line.split() for line in self._file.read().split("\n")[:-1]]
        self._file.seek(position)
        tokens = [float(row[1]) for row in rows if row[0] == "token"]
        return tokens, [(float(row[1]), float(row[2])) for row in rows if row[0] == "health"]

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._file.close()


def post(port: int, path: str, body: bytes, seconds: float = LONGEST) -> int:
    """POST and read the reply to its end, but not longer than `seconds`. The status; 0 where none came."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), seconds) as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + body)
        deadline = time.monotonic() + seconds
        status = 0
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            piece = sock.recv(1 << 20)
            if not piece:
                break
            status = status or int(piece.split(b" ", 2)[1])
        return status
    return 0


def at_once(port: int, path: str, bodies: list[bytes], seconds: float = LONGEST) -> list[int]:
    """The statuses of requests that are sent side by side."""
    statuses = [0] * len(bodies)

    def ask(number: int) -> None:
        statuses[number] = post(port, path, bodies[number], seconds)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def in_turn(port: int, path: str, bodies: list[bytes]) -> list[int]:
    """The statuses of requests that are sent one after the other."""
    return [post(port, path, body) for body in bodies]


def encoded(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def words(n_characters: int) -> str:
    return (WORDS * (n_characters // len(WORDS) + 1))[:n_characters]


def stop_strings(server: ServerProcess) -> Attack:
    """Long beginnings in common, for an answer of which a grammar forces every token."""
    length = params.MAX_STOPS_LENGTH // params.MAX_STOPS
    stop = [("ab" * length)[: length - 5] + f"{i:03}zz" for i in range(params.MAX_STOPS)]
    forced = {"const": "ab" * (LONGEST_LITERAL // 2)}
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": forced}, "required": ["a", "b"]}
    body = encoded(prompt="Say", json_schema=schema, stop=stop, n_predict=1500, stream=True)
    return partial(at_once, server.port, "/completion", [body])


def dry_breakers(server: ServerProcess) -> Attack:
    """Breakers that nobody has sent before."""
    bodies = []
    for turn in range(4):
        breakers = [f"{chr(97 + i % 26)}{turn}{i}".ljust(sampling_fields.MAX_BREAKER_LENGTH, "e") for i in range(63)]
        fields = {"dry_multiplier": 0.8, "dry_sequence_breakers": [*breakers, "e"]}
        bodies.append(encoded(prompt="Say", n=3, max_tokens=8, **fields))
    return partial(in_turn, server.port, "/v1/completions", bodies)


def penalised_histories(server: ServerProcess) -> Attack:
    """Long prompts whose every token goes into the penalties of every choice."""
    prompt = list(range(100, 3000))
    body = encoded(prompt=[prompt] * 2, n=3, repeat_last_n=-1, repeat_penalty=1.1, dry_multiplier=0.8, max_tokens=1)
    return partial(at_once, server.port, "/v1/completions", [body])


def many_prompts(server: ServerProcess, **more: Any) -> Attack:
    bias = [[token, 0.5] for token in range(MAX_BIASES)]
    texts = [f"Prompt {i}" for i in range(running.MAX_ANSWERS)]
    return partial(at_once, server.port, "/completion", [encoded(prompt=texts, logit_bias=bias, n_predict=0, **more)])


def many_prompts_with_stops_and_a_grammar(server: ServerProcess) -> Attack:
    stop = [words(params.MAX_STOPS_LENGTH // 16 - 2) + f"{i:02}" for i in range(16)]
    return many_prompts(server, stop=stop, grammar='root ::= [a-z] "' + words(LONGEST_LITERAL) + '"')


def probabilities(server: ServerProcess) -> Attack:
    fields = {"n_probs": logprob_fields.MAX_PROBS, "n_predict": 200, "stream": True, "ignore_eos": True}
    bodies = [encoded(prompt="Say", post_sampling_probs=i == 1, top_k=0, **fields) for i in range(3)]
    return partial(at_once, server.port, "/completion", bodies)


def large_chats(server: ServerProcess) -> Attack:
    bodies = [encoded(messages=[{"role": "user", "content": words(7 << 20) + str(i)}], max_tokens=1) for i in range(8)]
    return partial(at_once, server.port, "/v1/chat/completions", bodies)


def many_messages(server: ServerProcess) -> Attack:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i}"} for i in range(401)]
    return partial(at_once, server.port, "/v1/chat/completions", [encoded(messages=messages, max_tokens=1)] * 2)


def unfinished_bodies(server: ServerProcess) -> Attack:
    """Sixteen bodies of 64 MiB of which the last byte never comes."""
    piece = b" " * (1 << 20)
    head = f"POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {64 << 20}\r\n\r\n".encode()

    def attack() -> list[int]:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in range(16)]
            for data in (head, *[piece] * 63):
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.sendall(data)
            time.sleep(1)
        return []

    return attack


def long_infill(server: ServerProcess) -> Attack:
    half = words(prompt_fields.MAX_TEXT // 2)
    return partial(at_once, server.port, "/infill", [encoded(input_prefix=half, input_suffix=half, n_predict=1)] * 2)


def long_texts(server: ServerProcess) -> Attack:
    return partial(at_once, server.port, "/tokenize", [encoded(content=words(prompt_fields.MAX_TEXT))] * 4)


def a_queue_for_one_slot(server: ServerProcess) -> Attack:
    """As many as may wait; those over the bound get a 503."""
    prompts = [f"{i}" for i in range(running.MAX_ANSWERS)]
    bodies = [encoded(prompt=prompts, n_predict=4, id_slot=3, stream=True)] * 16
    return partial(at_once, server.port, "/completion", bodies, 4)


def evicted_prompts(server: ServerProcess) -> Attack:
    """Prompts that fill slots and push each other out to host memory."""
    bodies = [encoded(prompt=f"{i} " + words(8_000), n_predict=1) for i in range(4)]
    return partial(in_turn, server.port, "/completion", bodies)


def a_saved_slot(server: ServerProcess) -> Attack:
    """Of a prompt that was computed before."""
    post(server.port, "/completion", encoded(prompt="A saved one: " + words(16_000), n_predict=1, id_slot=2))
    return partial(in_turn, server.port, "/slots/2?action=save", [encoded(filename="neighbours.bin")] * 3)


def restores_of_a_busy_slot(server: ServerProcess) -> Attack:
    """Of the file that `a_saved_slot` left, by clients that do not wait for long."""
    restores = [encoded(filename="neighbours.bin")] * 64

    def attack() -> list[int]:
        busy = encoded(prompt="Busy", n_predict=4000, ignore_eos=True, id_slot=2)
        holding = threading.Thread(target=post, args=(server.port, "/completion", busy, 6))
        holding.start()
        time.sleep(0.5)
        statuses = at_once(server.port, "/slots/2?action=restore", restores, 3)
        holding.join()
        return statuses

    return attack


def rapid_resets(server: ServerProcess) -> Attack:
    """40,000 requests over one HTTP/2 connection, each taken back at once."""
    headers, end_of_all, reset = 1, 5, 3
    block = b"\x82\x86\x04\x07/health\x01\x09127.0.0.1"  # GET, http, the path, the authority: HPACK without its table
    sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"]
    for stream_id in range(1, 80_000, 2):
        sent.append(struct.pack("!HBBBL", 0, len(block), headers, end_of_all, stream_id) + block)
        sent.append(struct.pack("!HBBBLL", 0, 4, reset, 0, stream_id, 8))

    def attack() -> list[int]:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 20) as sock:
            sock.sendall(b"".join(sent))
            while sock.recv(65536):
                pass
        return []

    return attack


CASES: dict[str, Callable[[ServerProcess], Attack]] = {
    case.__name__: case
    for case in (
        stop_strings,
        dry_breakers,
        penalised_histories,
        many_prompts,
        many_prompts_with_stops_and_a_grammar,
        probabilities,
        large_chats,
        many_messages,
        unfinished_bodies,
        long_infill,
        long_texts,
        a_queue_for_one_slot,
        evicted_prompts,
        a_saved_slot,
        restores_of_a_busy_slot,
        rapid_resets,
    )
}


def watched(server: ServerProcess, name: str) -> tuple[Seen, Seen, list[int]]:
    """What the neighbour sees, quiet and during a case, and the statuses that the case got."""
    with Witness(server.port) as witness:
        witness.wait()
        attack = CASES[name](server)
        time.sleep(0.2)
        begun = time.monotonic()
        time.sleep(QUIET)
        quiet = witness.between(begun, time.monotonic())
        pids = (server.process.pid, server.worker_pid())
        before = [resident(pid) for pid in pids]
        peaks = list(before)
        over = threading.Event()

        def measure() -> None:
            while not over.wait(0.02):
                for i, pid in enumerate(pids):
                    with contextlib.suppress(OSError):
                        peaks[i] = max(peaks[i], resident(pid))

        measuring = threading.Thread(target=measure)
        measuring.start()
        begun, before_it = time.monotonic(), Use.now()
        try:
            statuses = attack()
            time.sleep(0.3)
            seen, others = witness.between(begun, time.monotonic()), Use.now().others_since(before_it)
        finally:
            over.set()
            measuring.join()
    server_mib, worker_mib = ((peak - start) / (1 << 20) for peak, start in zip(peaks, before, strict=True))
    return quiet, Seen(seen.gap, seen.health, server_mib, worker_mib, others), statuses


def arguments(model: Path, folder: Path) -> tuple[str, ...]:
    """The server's command line. Slot files go to `folder`."""
    demo = ("-m", str(model), "--chat-template", "chatml", "--slots", "--slot-save-path", str(folder))
    markers = [f"tokenizer.ggml.fim_{name}_token_id=int:{token}" for name, token in FILL_IN.items()]
    infill = [word for marker in markers for word in ("--override-kv", marker)]
    return (
        *demo,
        *infill,
        "-t",
        "-1",
        "-c",
        "32768",
        "-np",
        "4",
        "--infill",
        "--cache-ram",
        "2048",
        "--max-body",
        "128",
    )


def main() -> None:
    """Try the cases named on the command line, or all, and print a row for each."""
    columns = ("case", "gap ms", "/health ms", "server MiB", "worker MiB", "others' processors", "statuses")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        model = ensure_demo_model(progress=False)
        with ServerProcess(Path(folder) / "log", *arguments(model, Path(folder))) as server:
            for name in sys.argv[1:] or list(CASES):
                quiet, seen, statuses = watched(server, name)
                counted = ", ".join(f"{statuses.count(each)} × {each}" for each in sorted(set(statuses)))
                print(
                    f"| {name} | {quiet.gap:.0f} → {seen.gap:.0f} | {quiet.health:.0f} → {seen.health:.0f} "
                    f"| +{seen.server_mib:.0f} | +{seen.worker_mib:.0f} | {seen.others:.0%} | {counted} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
