"""What guessing gains: `python -m tests.benchmarks.speculation_gain [model.gguf] [--scenarios edit] [--rounds 3]`.

Prints a Markdown table of tokens per second with and without drafts, and of tokens a step, for 1, 4 and 16 streams.
Both are asked of one server in turn: `speculative.n_max` 0 is without. Medians over the rounds; each has texts of
its own, so that no earlier answer holds the next one. It ends after about seven minutes, with fewer rounds where the
machine is slow. What guessing costs where it gains nothing: tests/benchmarks/speculation_cost.py.

A small model can neither edit nor quote to order. So what repeats is its own text, written before without drafts, by
another API key so that the corpus does not know it:

* `edit`: 600 tokens are the answer, and the prediction of the request is that text with three lines of it changed.
* `quote`: a text of 500 tokens is in the prompt, and the answer is written in turns: the model writes, the client opens
  a quotation with a few words of the text, and the model goes on.
* `json`: twenty answers of one schema, and five a stream at the least. `prose`: text that repeats nothing on purpose.

Only what the model wrote counts. A token that a grammar forces is one without a step.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from llamabox.bench.load import words
from llamabox.demo import ensure_demo_model
from tests.e2e.server_process import ServerProcess

STREAMS = (1, 4, 16)

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["given_name", "family_name", "age_in_years", "favourite_colour", "newsletter_subscription"],
    "properties": {
        "given_name": {"type": "string", "maxLength": 10},
        "family_name": {"type": "string", "maxLength": 10},
        "age_in_years": {"type": "integer", "minimum": 0, "maximum": 120},
        "favourite_colour": {"enum": ["red", "green", "blue", "yellow"]},
        "newsletter_subscription": {"type": "boolean"},
    },
}


AUTHOR, CLIENT = "author", "client"
"""API keys, so that the client's corpus does not hold what the author wrote."""

NATURAL = {"temperature": 0, "repeat_penalty": 1.15, "repeat_last_n": 256, "ignore_eos": True}
"""Text that does not go round in circles, and comes out alike each time."""


@dataclass(slots=True)
class Talk:
    """A client of the server, whose requests draft or not, and what they took."""

    server: ServerProcess
    drafts: bool
    n_beside: int = 1
    """Streams of the scenario."""
    n_tokens: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    n_steps: int = 0

    def ask(self, route: str, body: dict[str, Any], key: str = CLIENT) -> dict[str, Any]:
        """The reply of the server. The client's numbers are added up."""
        if not self.drafts or key == AUTHOR:
            body = body | {"speculative.n_max": 0}
        reply = self.server.http.post(route, json=body, headers={"Authorization": f"Bearer {key}"})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        if key == CLIENT:
            timings = answer["timings"]
            n_accepted = timings.get("draft_n_accepted", 0)
            self.n_tokens += timings["predicted_n"]
            self.n_drafted += timings.get("draft_n", 0)
            self.n_accepted += n_accepted
            self.n_steps += timings["predicted_n"] - n_accepted
        return answer

    def write(self, prompt: str, n: int, key: str = CLIENT, **fields: Any) -> str:
        """`n` more tokens."""
        text: str = self.ask("/completion", {"prompt": prompt, "n_predict": n, **NATURAL, **fields}, key)["content"]
        return text


Scene = Callable[[], None]
"""What is timed."""


def turn(seed: str, ask: str) -> str:
    """The prompt of a chat."""
    return f"<|im_start|>user\n{ask} {words(seed, 4)}.<|im_end|>\n<|im_start|>assistant\n"


def edit(talk: Talk, seed: str) -> Scene:
    prompt = turn(seed, "Write a long text about")
    answer = talk.write(prompt, 600, AUTHOR).split(" ")
    for i in (len(answer) // 5, len(answer) // 2, 4 * len(answer) // 5):
        answer[i : i + 3] = words(f"{seed} {i}", 5).split()
    foreseen = {"type": "content", "content": " ".join(answer)}
    return lambda: void(talk.write(prompt, 600, prediction=foreseen))


def quote(talk: Talk, seed: str) -> Scene:
    text = talk.write(turn(seed, "Write a long text about"), 500, AUTHOR)
    spoken = text.split()
    openings = [" ".join(spoken[i : i + 5]) for i in range(0, len(spoken) - 30, len(spoken) // 8)]

    def scene() -> None:
        prompt = f"{turn(seed, 'Sum up this text, with quotations:')}{text}\n\nSummary: This text"
        for opening in openings:
            prompt += talk.write(prompt, 12) + f' "{opening}'
            prompt += talk.write(prompt, 24, repeat_penalty=1) + '". The text also'

    return scene


def schema(talk: Talk, seed: str) -> Scene:
    def scene() -> None:
        for i in range(max(5, 20 // talk.n_beside)):
            talk.ask(
                "/v1/chat/completions",
                {
                    "messages": [{"role": "user", "content": f"Invent a customer. {words(f'{seed} {i}', 6)}"}],
                    "max_tokens": 160,
                    "response_format": {"type": "json_schema", "json_schema": {"name": "customer", "schema": SCHEMA}},
                },
            )

    return scene


def prose(talk: Talk, seed: str) -> Scene:
    return lambda: void(talk.write(words(seed, 24), 96, temperature=0.8, repeat_penalty=1, seed=1))


def void(_: str) -> None:
    pass


SCENARIOS: dict[str, Callable[[Talk, str], Scene]] = {"edit": edit, "quote": quote, "json": schema, "prose": prose}


@dataclass(frozen=True, slots=True)
class Figures:
    tokens_per_second: float
    tokens_a_step: float
    acceptance: float


def measure(server: ServerProcess, name: str, n_streams: int, seed: str, *, drafts: bool) -> Figures:
    """One round of a scenario by so many clients at once."""
    talks = [Talk(server, drafts, n_streams) for _ in range(n_streams)]
    with ThreadPoolExecutor(n_streams) as pool:
        scenes = list(pool.map(lambda i: SCENARIOS[name](talks[i], f"{seed} {i}"), range(n_streams)))
        started = time.perf_counter()
        list(pool.map(lambda scene: scene(), scenes))
    seconds = time.perf_counter() - started
    n_tokens, n_steps, n_drafted, n_accepted = (
        sum(getattr(talk, what) for talk in talks) for what in ("n_tokens", "n_steps", "n_drafted", "n_accepted")
    )
    return Figures(n_tokens / seconds, n_tokens / max(n_steps, 1), n_accepted / max(n_drafted, 1))


def rows(server: ServerProcess, cases: list[tuple[str, int]], n_rounds: int, seconds: float) -> Iterator[str]:
    """The table's rows. A case has a round at least, and as many as fit into its share of the `seconds` at most."""
    yield "| scenario | streams | rounds | tokens/s without | with | ratio | tokens a step | accepted of drafted |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    end = time.monotonic() + seconds
    for i, (name, n_streams) in enumerate(cases):
        found: dict[bool, list[Figures]] = {True: [], False: []}
        order = cycle([(True, False), (False, True)])
        begun = time.monotonic()
        share = (end - begun) / (len(cases) - i)
        for k in range(n_rounds):
            if k and (time.monotonic() - begun) * (k + 1) / k > share:
                break
            for drafts in next(order):
                one = measure(server, name, n_streams, f"{name} {n_streams} {k} {drafts}", drafts=drafts)
                found[drafts].append(one)
        slow, fast = (statistics.median(one.tokens_per_second for one in found[which]) for which in (False, True))
        n_step, part = (
            statistics.median(getattr(one, what) for one in found[True]) for what in ("tokens_a_step", "acceptance")
        )
        yield (
            f"| {name} | {n_streams} | {len(found[True])} | {slow:.0f} | {fast:.0f} | {fast / slow:.2f} "
            f"| {n_step:.2f} | {part:.2f} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)))
    parser.add_argument("--rounds", type=int, default=3, help="of each case at most")
    parser.add_argument("--minutes", type=float, default=7, help="about, for all cases; each has a round at least")
    parser.add_argument("--options", default="", help="further words of the server's command line")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped with us
    model = given.model or str(ensure_demo_model())
    options = ["-m", model, "-t", "-1", "-c", "32768", "-np", str(max(STREAMS)), "--api-key", f"{AUTHOR},{CLIENT}"]
    options += ["--chat-template", "chatml", *given.options.split()]
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "log", *options) as server:
        Talk(server, drafts=True).write("One, two, three,", 8)
        cases = [(name, int(n)) for name in given.scenarios.split(",") for n in given.streams.split(",")]
        for row in rows(server, cases, given.rounds, 60 * given.minutes):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
