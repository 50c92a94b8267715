"""What calls of tools cost a step: `python -m tests.benchmarks.tools.call_cost [--streams 32] [--rounds 5]`.

Prints a Markdown table of the milliseconds that the next decode waits for the host (`llamabox:step_seconds` of
/metrics), over steps in which all streams run and none begins:

* `text`: a chat without tools.
* `auto`: the same with tools that it may call, so that its text is followed by a grammar until a call begins.
* `required`: amid the arguments of a call, a string without an end. Between tags no such bound is kept, so that some
  strings end there and calls follow one another: a step has tokens beside that the grammar forces.

All are asked of one server, in turn. The means of a round are of some hundred steps; the medians over the rounds are
printed, and of the rounds' differences from text; how many tokens a step brings, forced ones among them, and the
microseconds of the host that each takes. The model is read by one thread unless `--threads` says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamabox.demo import ensure_demo_model
from tests.benchmarks.tools_first_token import CALLS, SHOWN, TURNS
from tests.e2e.server_process import ServerProcess

STAGES = ("schedule", "sample", "update", "host", "decode")

TEMPLATES: dict[str, str | None] = {
    form: TURNS.replace("SHOWN", SHOWN["names"]).replace("CALL", call) for form, call in CALLS.items()
}
TEMPLATES["generic"] = None
"""Forms with marks around calls, and the model's own template, which knows of none."""

N_TOKENS = 900
"""More than a round takes: nobody ends within it."""


def tools(n: int) -> list[dict[str, Any]]:
    """The same `n` tools for all: one text each that has no end."""
    text = {"type": "string", "minLength": 10_000}
    parameters = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    return [{"type": "function", "function": {"name": f"tool_{i}", "parameters": parameters}} for i in range(n)]


def body(kind: str, temperature: float, i: int) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": f"Tell me a long story about the number {i}."}],
        "max_tokens": N_TOKENS,
        "temperature": temperature,
        "seed": i,
        "ignore_eos": True,
    }
    return asked if kind == "text" else {**asked, "tools": tools(8), "tool_choice": kind}


def stages(server: ServerProcess) -> dict[str, tuple[float, float]]:
    """The seconds of each stage so far, and of how many steps they are; and how many tokens were said."""
    text = server.http.get("/metrics").text
    found = {}
    for stage in STAGES:
        values = (re.search(rf'^llamabox:step_seconds_{what}{{stage="{stage}"}} (\S+)', text, re.M) for what in SUMMED)
        found[stage] = tuple(0.0 if value is None else float(value[1]) for value in values)
    said = re.search(r"^llamacpp:tokens_predicted_total (\S+)", text, re.M)
    found["tokens"] = (0.0 if said is None else float(said[1]), 0.0)
    return found  # type: ignore[return-value]


SUMMED = ("sum", "count")


class Stream(threading.Thread):
    """A chat that is read until `stop`."""

    def __init__(self, server: ServerProcess, asked: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._asked = asked
        self._stops = threading.Event()
        self.n_chunks = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for chunk in self._server.stream("/v1/chat/completions", self._asked):
                self.n_chunks += any(chunk["choices"][0]["delta"].get(key) for key in ("content", "tool_calls"))
                if self._stops.is_set():
                    return
            self.error = AssertionError("it ended too early")
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stops.set()


@contextlib.contextmanager
def streams(server: ServerProcess, n: int, kind: str, temperature: float) -> Iterator[None]:
    """While `n` streams run, of which each has said something."""
    running = [Stream(server, body(kind, temperature, i)) for i in range(n)]
    for one in running:
        one.start()
    while any(one.n_chunks < 4 for one in running):
        failed = [one.error for one in running if one.error is not None]
        if failed:
            raise failed[0]
        time.sleep(0.02)
    yield
    for one in running:
        assert one.error is None, f"{kind}: {one.error}"
        one.stop()
    for one in running:
        one.join()


def measure(server: ServerProcess, n: int, kind: str, temperature: float, seconds: float) -> dict[str, float]:
    """Milliseconds of each stage in a step, the tokens that it brings, and how many steps they are the means of."""
    with streams(server, n, kind, temperature):
        before = stages(server)
        time.sleep(seconds)
        after = stages(server)
    n_steps = after["host"][1] - before["host"][1]
    found = {stage: 1e3 * (after[stage][0] - before[stage][0]) / n_steps for stage in STAGES}
    return found | {"steps": n_steps, "tokens": (after["tokens"][0] - before["tokens"][0]) / n_steps}


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.0, 0.8])
    parser.add_argument("--forms", nargs="*", choices=sorted(TEMPLATES), default=sorted(TEMPLATES))
    asked = parser.parse_args(words)
    heads = ("form", "temperature", f"{asked.streams} streams", *STAGES, "host more", "tokens", "µs a token", "steps")
    print(f"| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    for form in asked.forms:
        arguments = ["-m", str(ensure_demo_model()), "-c", str(1024 * asked.streams), "-np", str(asked.streams)]
        arguments += ["-t", str(asked.threads), "--metrics"]
        if TEMPLATES[form] is not None:
            arguments += ["--chat-template", str(TEMPLATES[form])]
        with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "log", *arguments) as server:
            for temperature in asked.temperatures:
                found: dict[str, list[dict[str, float]]] = {"text": [], "auto": [], "required": []}
                for _ in range(asked.rounds):
                    for kind, rounds in found.items():
                        rounds.append(measure(server, asked.streams, kind, temperature, asked.seconds))
                        time.sleep(0.5)
                for kind, rounds in found.items():
                    medians = [f"{statistics.median(one[stage] for one in rounds):.3f}" for stage in STAGES]
                    pairs = zip(rounds, found["text"], strict=True)
                    more = statistics.median(one["host"] - text["host"] for one, text in pairs)
                    n_steps = sum(one["steps"] for one in rounds)
                    n_tokens = statistics.median(one["tokens"] for one in rounds)
                    a_token = 1e3 * statistics.median(one["host"] / one["tokens"] for one in rounds)
                    counts = (f"{n_tokens:.1f}", f"{a_token:.1f}", f"{n_steps:.0f}")
                    cells = (form, temperature, kind, *medians, f"{more:+.3f}", *counts)
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
