"""What pictures that arrive do to running texts: `python -m tests.benchmarks.pictures.gaps [--rounds 5] [--threads 2]`.

Four streams run, and some way into them eight pictures of 2,000 x 2,000 pixels are asked about at once. The server says
with each token when the engine had it (`timings_per_token`), so that what is measured is the engine's own step, and
neither this client nor the way to it. Prints a Markdown table: the steps of the streams before the pictures came, and
from their arrival to the last answer about one. `ratio` is that of the longest of these to the median of those.

Each round has pictures of its own, so that none is known. Nothing is drafted, so that each step brings a token; with
`--drafts` the answers about pictures are. The texts must be what they are without pictures: that is the last column.

`--layers N` gives the projector a tower of so many layers, which see nothing and cost as those that do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamabox.bench.load import words
from llamabox.demo import ensure_demo_model
from tests.benchmarks.pictures.files import chat, picture
from tests.e2e.server_process import ServerProcess
from tests.models.media.projectors import write_mmproj

N_BEFORE = 40
"""Tokens that each stream has before the pictures come."""

N_PREDICT = 300

NO_DRAFTS = {"speculative.n_max": 0}


@dataclass(slots=True)
class Stream:
    """A running text: when the engine had each of its tokens, by its own clock, and when they were read here."""

    made: list[float] = field(default_factory=list)  # seconds since its first token
    read: list[float] = field(default_factory=list)
    text: str = ""

    @property
    def began(self) -> float:
        """The time of its first token by this process' clock: as the quickest of its events has it."""
        return min(read - made for read, made in zip(self.read, self.made, strict=True))

    def steps(self, start: float, stop: float) -> list[float]:
        """Seconds between two tokens, of those that lie between `start` and `stop` in part at least."""
        times = [self.began + made for made in self.made]
        return [b - a for a, b in itertools.pairwise(times) if b > start and a < stop]


class Streams:
    """Texts that run side by side, each on a thread."""

    def __init__(self, server: ServerProcess, n: int, seed: str) -> None:
        self.streams = [Stream() for _ in range(n)]
        self.has_begun = threading.Event()
        self._server = server
        self._threads = [
            threading.Thread(target=self._read, args=(stream, words(f"{seed} {i}", 24)))
            for i, stream in enumerate(self.streams)
        ]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _read(self, stream: Stream, prompt: str) -> None:
        asked: dict[str, Any] = {"prompt": prompt, "n_predict": N_PREDICT, "temperature": 0, "ignore_eos": True}
        asked |= {**NO_DRAFTS, "timings_per_token": True, "cache_prompt": False}
        for event in self._server.stream("/completion", asked):
            if "timings" in event and event["content"]:
                stream.made.append(event["timings"]["predicted_ms"] / 1e3)
                stream.read.append(time.perf_counter())
            stream.text += event["content"]
            if all(len(one.made) >= N_BEFORE for one in self.streams):
                self.has_begun.set()

    def steps(self, start: float, stop: float) -> list[float]:
        return [1e3 * step for stream in self.streams for step in stream.steps(start, stop)]


@dataclass(frozen=True, slots=True)
class Round:
    """Milliseconds of the streams' steps."""

    before: list[float]
    beside: list[float]
    seconds: float  # from the arrival of the pictures to the last answer
    is_same: bool  # the texts are those without pictures

    @property
    def ratio(self) -> float:
        return max(self.beside) / statistics.median(self.before)


def send(server: ServerProcess, body: bytes) -> int:
    """Ask about a picture. Returns the status of the answer."""
    headers = {"Content-Type": "application/json"}
    return server.http.post("/v1/chat/completions", content=body, headers=headers).status_code


def play(server: ServerProcess, number: int, asked: argparse.Namespace) -> Round:
    """One round."""
    with Streams(server, asked.streams, "gaps") as alone:
        pass
    n = asked.pictures
    fields = {"max_tokens": 4, **({} if asked.drafts else NO_DRAFTS)}
    # A client that writes JSON beside the engine would take a core from it: the bodies are there before.
    bodies = [
        json.dumps(chat(picture(number * n + i, asked.side), "Describe it.", **fields)).encode() for i in range(n)
    ]
    with Streams(server, asked.streams, "gaps") as streams:
        streams.has_begun.wait()
        arrived = time.perf_counter()
        with ThreadPoolExecutor(n) as pool:
            for status in pool.map(lambda body: send(server, body), bodies):
                assert status == 200
        answered = time.perf_counter()
    first = min(stream.began for stream in streams.streams)
    is_same = [one.text for one in streams.streams] == [one.text for one in alone.streams]
    # The prompts of the streams are computed while the first of them run.
    settled = max(stream.began for stream in streams.streams) + 0.1
    assert settled < arrived, f"the streams were not settled {arrived - first:.3f} s after the first token"
    return Round(streams.steps(settled, arrived), streams.steps(arrived, answered), answered - arrived, is_same)


def row(name: str, rounds: Seq[Round]) -> str:
    """The medians of several rounds, or one."""
    cells = [name]
    for which in ("before", "beside"):
        found = [sorted(getattr(one, which)) for one in rounds]
        cells.append(f"{statistics.median(statistics.median(steps) for steps in found):.1f}")
        cells.append(f"{statistics.median(steps[int(0.95 * len(steps))] for steps in found):.1f}")
        cells.append(f"{statistics.median(steps[-1] for steps in found):.1f}")
    cells.append(f"{statistics.median(one.ratio for one in rounds):.2f}")
    cells.append(f"{statistics.median(one.seconds for one in rounds):.2f}")
    cells.append("yes" if all(one.is_same for one in rounds) else "NO")
    return f"| {' | '.join(cells)} |"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the demo model")
    parser.add_argument("--mmproj", type=Path, help="default: one that sees colours, of no cost")
    parser.add_argument("--layers", type=int, default=0, help="of that one's tower")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--side", type=int, default=2000, help="pixels of each")
    parser.add_argument("--threads", type=int, default=2, help="that decode")
    parser.add_argument("--mmproj-threads", type=int, default=1, help="that encode")
    parser.add_argument("--drafts", action="store_true", help="for the answers about pictures")
    asked = parser.parse_args(given)
    model = asked.model or ensure_demo_model()
    n_slots = asked.streams + asked.pictures
    with tempfile.TemporaryDirectory() as folder:
        mmproj = asked.mmproj or write_mmproj(Path(folder) / "mmproj.gguf", model, audio=False, n_idle=asked.layers)
        options = ["-m", str(model), "--mmproj", str(mmproj), "-c", str(1024 * n_slots), "-np", str(n_slots)]
        options += ["-t", str(asked.threads), "--mmproj-threads", str(asked.mmproj_threads)]
        print("| round | before: median, ms | p95 | longest | beside pictures: median | p95 | longest | ratio ", end="")
        print("| answered after, s | same texts |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        with ServerProcess(Path(folder) / "log", *options) as server:
            server.ok("/v1/chat/completions", chat(picture(10_000, 64), "Describe it.", max_tokens=4))
            rounds = []
            for number in range(asked.rounds):
                rounds.append(play(server, number, asked))
                print(row(str(number + 1), rounds[-1:]), flush=True)
        print(row("all", rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
