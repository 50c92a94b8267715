"""What guessing costs where it gains nothing: `python -m tests.benchmarks.speculation_cost [host] [model]`.

* `host`: the processor time of a step in the engine, over a runner that computes nothing and a clock on which each
  pass takes its time. Texts repeat their prompts with a chance for each token to do so; 0 is prose. It takes a minute.
* `model`: tokens per second of prose beside a draft model of the model's own size, which never pays, against the same
  requests without drafts. It takes about two minutes.

Both sides run in turn. Of `host` it prints the least of the rounds, of `model` the median of their ratios.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llamabox.bench.load import words
from llamabox.demo import ensure_demo_model
from llamabox.engine.batch import Batch
from llamabox.engine.drafting.passes import passes
from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.engine.engine import Engine
from llamabox.engine.request import SamplingParams
from llamabox.engine.seams import Ask, RunnerFacts
from tests.benchmarks.fakes.null_runner import NullMemory, NullSampler
from tests.e2e.server_process import ServerProcess
from tests.engine.driver import engine_config, request

N_CTX = 4096
N_PROMPT = 300
PERIOD = 60
"""Tokens after which a text says the same again."""

ALONE = 0.0017
"""Seconds of a pass of one row; a further one takes a quarter of that."""

N_STEPS = 100
N_WARM = 200


class PassClock:
    """The real clock, and on top of it what passes are said to take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return time.perf_counter() + self.seconds


class RepeatingRunner:
    """Computes nothing: each slot has a text of its own, which says again with `chance` what it said before."""

    facts = RunnerFacts(n_batch=2048, n_ubatch=512, mixes=False, is_steady=True)

    def __init__(self, clock: PassClock, n_slots: int, chance: float) -> None:
        self.memory = NullMemory()
        self._clock = clock
        self._rows: list[tuple[int, int]] = []
        draw = random.Random(3)
        self.texts: list[list[int]] = []
        for _ in range(n_slots):
            base = [draw.randrange(2, 50_000) for _ in range(PERIOD)]
            self.texts.append(
                [base[i % PERIOD] if draw.random() < chance else draw.randrange(2, 50_000) for i in range(N_CTX)]
            )

    def sampler_source(self, params: SamplingParams, prompt: Seq[int], n_ctx: int) -> RepeatingRunner:
        return self

    def start(self, seed: int) -> NullSampler:
        return NullSampler()

    def execute(self, batch: Batch) -> None:
        self._rows = [(run.seq_id, run.position + i) for run in batch.runs for i in range(len(run))]
        self.memory.last.update((run.seq_id, run.position + len(run) - 1) for run in batch.runs)
        lengths = [(run.seq_id, len(run)) for run in batch.runs]
        self._clock.seconds += sum(ALONE * (0.75 + 0.25 * n) for n in passes(lengths, 512, is_unified=False))

    def wait(self) -> None:
        pass

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        return [self._sample(ask) for ask in asks]

    def _sample(self, ask: Ask) -> list[int]:
        tokens: list[int] = []
        for row, drafted in zip(ask.rows, [*ask.draft, -1], strict=True):
            slot, position = self._rows[row]
            tokens.append(self.texts[slot][position + 1])
            if tokens[-1] != drafted:
                break
        return tokens

    def piece(self, token: int, special: bool) -> bytes:
        return b"A"

    def is_eog(self, token: int) -> bool:
        return False


class Streams:
    """An engine in which `n` sequences go on and on."""

    def __init__(self, n: int, chance: float, *, drafts: bool) -> None:
        clock = PassClock()
        runner = RepeatingRunner(clock, n, chance)
        drafters = [TextDrafter(Corpus())] if drafts else []
        self._engine = Engine(runner, engine_config(n_slots=n, n_ctx=N_CTX), drafters, clock=clock)  # type: ignore[arg-type]
        for i, text in enumerate(runner.texts):
            self._engine.submit(request(f"r{i}", tuple(text[:N_PROMPT]), n_predict=-1, id_slot=i))
        while self._engine.n_waiting or any(one.is_prefilling for one in self._engine.running):
            self._engine.step()
        self.run(N_WARM)

    def run(self, n_steps: int) -> tuple[float, float]:
        """Milliseconds that a step took this thread, and tokens that it brought."""
        before = sum(one.n_generated for one in self._engine.running)
        started = time.thread_time()
        for _ in range(n_steps):
            self._engine.step()
        seconds = time.thread_time() - started
        n_tokens = sum(one.n_generated for one in self._engine.running) - before
        return 1e3 * seconds / n_steps, n_tokens / n_steps


def host(n_rows: Seq[int], n_rounds: int) -> None:
    print("| rows | chance of a token | ms a step without | with | more | tokens a step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for n in n_rows:
        for chance in (0.0, 0.8, 0.97):
            sides = {drafts: Streams(n, chance, drafts=drafts) for drafts in (False, True)}
            found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for k in range(n_rounds):
                for drafts in (False, True) if k % 2 else (True, False):
                    found[drafts].append(sides[drafts].run(N_STEPS))
            off, on = (min(ms for ms, _ in found[drafts]) for drafts in (False, True))
            n_tokens = statistics.mean(n for _, n in found[True])
            print(f"| {n} | {chance} | {off:.3f} | {on:.3f} | {on - off:+.3f} | {n_tokens:.1f} |", flush=True)


def prose(server: ServerProcess, n_streams: int, seed: str, *, drafts: bool) -> float:
    """Tokens per second of so many streams."""

    def say(i: int) -> int:
        body = {"prompt": words(f"{seed} {i}", 24), "n_predict": 128, "seed": i, "ignore_eos": True}
        if not drafts:
            body["speculative.n_max"] = 0
        n_tokens: int = server.ok("/completion", body)["timings"]["predicted_n"]
        return n_tokens

    started = time.perf_counter()
    with ThreadPoolExecutor(n_streams) as pool:
        n_tokens = sum(pool.map(say, range(n_streams)))
    return n_tokens / (time.perf_counter() - started)


def draft_model(n_streams: Seq[int], n_rounds: int) -> None:
    model = str(ensure_demo_model())
    options = ["-m", model, "-md", model, "-c", "32768", "-np", str(max(n_streams))]
    print("| streams | tokens/s without | with a draft model that does not pay | ratio |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "log", *options) as server:
        prose(server, 1, "warm", drafts=True)
        for n in n_streams:
            pairs: list[tuple[float, float]] = []
            for k in range(n_rounds):
                order = (False, True) if k % 2 else (True, False)
                rates = {drafts: prose(server, n, f"{n} {k} {drafts}", drafts=drafts) for drafts in order}
                pairs.append((rates[False], rates[True]))
            off, on = (statistics.median(one[i] for one in pairs) for i in (0, 1))
            ratio = statistics.median(fast / slow for slow, fast in pairs)
            print(f"| {n} | {off:.0f} | {on:.0f} | {ratio:.3f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["host", "model", []], default=["host", "model"])
    parser.add_argument("--rows", default="8,32", help="of a step, for host")
    parser.add_argument("--streams", default="1,4", help="for model")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if "host" in given.parts:
        host([int(n) for n in given.rows.split(",")], given.rounds)
    if "model" in given.parts:
        draft_model([int(n) for n in given.streams.split(",")], given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
