"""How long an agent's turns take: `python -m tests.e2e.agents.turn_times [--llama-server BINARY] [--rounds 3]`.

Plays a conversation of 12 turns with 60 tools over /v1/responses and /v1/messages, as Codex and Claude Code send it:
tools and history whole with each turn, a title asked for in between. What the assistant is said to have answered is
written here, and each answer has as many tokens, so that all servers compute the same.

With `--llama-server` the turns are asked of one started from that binary, too, with the same model, template, context
and threads; each turn of one server and of the other, in alternating order. Prints a Markdown table: the prompt's
tokens and those that were cached, the seconds of each turn (medians over the rounds), and the ratio of the servers'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from llamabox.demo import ensure_demo_model
from tests.chat.templates import HERMES
from tests.e2e.server_process import PATIENCE, ServerProcess
from tests.suite.ports import free_port

N_ANSWER = 32
"""Tokens of each answer."""

Json = dict[str, Any]


def parameters(i: int) -> Json:
    path = {"type": "string", "description": "A path."}
    return {
        "type": "object",
        "properties": {"path": path, f"n_{i}": {"type": "integer"}},
        "required": ["path"],
        "additionalProperties": False,
    }


class Responses:
    """As Codex asks."""

    path = "/v1/responses"

    def __init__(self, n_tools: int, mark: str) -> None:
        """Without a `mark` of its own a conversation would begin from the last one's tools."""
        self.tools = [
            {"type": "function", "name": f"tool_{mark}_{i}", "description": f"Tool {i}.", "parameters": parameters(i)}
            for i in range(n_tools)
        ]
        self.items: list[Json] = [{"role": "user", "content": "Mend the greeting in hello.py."}]

    def turn(self) -> Json:
        return {
            "model": "m",
            "instructions": "You are an agent.",
            "input": self.items,
            "tools": self.tools,
            "tool_choice": "auto",
            "store": False,
        } | self._short(N_ANSWER)

    def title(self, turn: int) -> Json:
        return {"model": "m", "input": f"A title for turn {turn}, please.", "store": False} | self._short(4)

    def _short(self, n: int) -> Json:
        return {"max_output_tokens": n, "temperature": 0, "stream": True}

    def go_on(self, turn: int) -> None:
        name, arguments = self.tools[turn]["name"], json.dumps({"path": f"file_{turn}.py"})
        self.items += [
            {"type": "function_call", "call_id": f"call_{turn}", "name": name, "arguments": arguments},
            {"type": "function_call_output", "call_id": f"call_{turn}", "output": f"line {turn}\n" * 8},
        ]

    @staticmethod
    def usage(events: list[Json]) -> tuple[int, int, int]:
        """Tokens of the prompt, those of them that were cached, and those of the answer."""
        told = events[-1]["response"]["usage"]
        return told["input_tokens"], told["input_tokens_details"]["cached_tokens"], told["output_tokens"]


class Messages:
    """As Claude Code asks."""

    path = "/v1/messages"

    def __init__(self, n_tools: int, mark: str) -> None:
        """Without a `mark` of its own a conversation would begin from the last one's tools."""
        self.tools = [
            {"name": f"tool_{mark}_{i}", "description": f"Tool {i}.", "input_schema": parameters(i)}
            for i in range(n_tools)
        ]
        self.messages: list[Json] = [{"role": "user", "content": "Mend the greeting in hello.py."}]
        self.turns = 0

    def turn(self) -> Json:
        self.turns += 1
        header = f"x-anthropic-billing-header: cc_version=2.1.197.{self.turns:03x}; cch={self.turns:05x};"
        system = [{"type": "text", "text": text} for text in (header, "You are an agent.")]
        return {"model": "m", "system": system, "messages": self.messages, "tools": self.tools} | self._short(N_ANSWER)

    def title(self, turn: int) -> Json:
        asked = {"role": "user", "content": f"A title for turn {turn}, please."}
        return {"model": "m", "system": "You write titles.", "messages": [asked]} | self._short(4)

    def _short(self, n: int) -> Json:
        return {"max_tokens": n, "temperature": 0, "stream": True}

    def go_on(self, turn: int) -> None:
        call = {"type": "tool_use", "id": f"toolu_{turn}", "name": self.tools[turn]["name"]}
        call["input"] = {"path": f"file_{turn}.py"}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": f"line {turn}\n" * 8}
        self.messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]

    @staticmethod
    def usage(events: list[Json]) -> tuple[int, int, int]:
        """Tokens of the prompt, those of them that were cached, and those of the answer."""
        told: Json = {}
        for event in events:
            told |= event.get("message", {}).get("usage", {}) | event.get("usage", {})
        n_cached = told.get("cache_read_input_tokens", 0)
        return told["input_tokens"] + n_cached, n_cached, told["output_tokens"]


APIS: dict[str, type[Responses] | type[Messages]] = {"responses": Responses, "messages": Messages}


@dataclass(frozen=True, slots=True)
class Turn:
    """How one went. Seconds: up to the first piece of the answer, and to its end."""

    n_prompt: int
    n_cached: int
    n_answer: int
    first: float
    whole: float


class Server:
    """One that is asked."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        # A connection each: llama-server closes one that it has answered often enough, whoever writes to it meanwhile.
        headers = {"Connection": "close"}
        self._http = httpx.Client(base_url=url, timeout=PATIENCE * 5, verify=False, headers=headers)

    def ask(self, path: str, body: Json) -> tuple[list[Json], float, float]:
        """The events of the answer, and the seconds up to the first piece and to the end."""
        events, first, begun = [], 0.0, time.perf_counter()
        with self._http.stream("POST", path, json=body) as reply:
            if reply.status_code != 200:
                reply.read()
                raise AssertionError(f"{self.name}: {reply.status_code}: {reply.text}")
            for line in reply.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    events.append(json.loads(line[6:]))
                    if not first and "delta" in events[-1]["type"]:
                        first = time.perf_counter() - begun
        return events, first, time.perf_counter() - begun

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self._http.get("/health").status_code == 200:
                    return
            assert process.poll() is None, f"{self.name} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{self.name} is not ready"
            time.sleep(0.1)


@contextlib.contextmanager
def serving(asked: argparse.Namespace, folder: Path) -> Iterator[list[Server]]:
    """llamabox, and llama-server where there is one, with the same model and options."""
    model = str(asked.model or ensure_demo_model(progress=False))
    options = ["-m", model, "-c", str(asked.context * 2), "-np", "2", "-t", str(asked.threads), "--ignore-eos"]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(ServerProcess(folder / "llamabox.log", *options, "--chat-template", HERMES))
        servers = [Server("llamabox", ours.url)]
        if asked.llama_server is not None:
            template, port = folder / "template.jinja", free_port()
            template.write_text(HERMES)
            command = [asked.llama_server, *options, "--port", str(port), "--jinja", "--chat-template-file", template]
            log = stack.enter_context((folder / "llama-server.log").open("wb"))
            libraries = f"{asked.llama_server.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": libraries}
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            servers.append(Server("llama-server", f"http://127.0.0.1:{port}"))
            servers[1].wait_ready(process)
        yield servers


def play(
    servers: list[Server], api: type[Responses | Messages], asked: argparse.Namespace, mark: str
) -> list[list[Turn]]:
    """One conversation: the turns of each server."""
    conversation = api(asked.tools, mark)
    found: list[list[Turn]] = [[] for _ in servers]
    for turn in range(asked.turns):
        body = conversation.turn()
        order = range(len(servers)) if turn % 2 == 0 else reversed(range(len(servers)))
        for i in order:
            events, first, whole = servers[i].ask(api.path, body)
            found[i].append(Turn(*api.usage(events), first, whole))
            servers[i].ask(api.path, conversation.title(turn))
        conversation.go_on(turn)
    return found


def report(name: str, servers: list[Server], rounds: list[list[list[Turn]]]) -> None:
    """The table of one API's conversations, and what the turns behind the first took together."""
    heads = [f"{server.name}: prompt | cached | answer | first s | turn s" for server in servers]
    ratio = " | ratio first | ratio turn" if len(servers) > 1 else ""
    print(f"\n{name}\n\n| turn | {' | '.join(heads)}{ratio} |")
    print("| --- " * (1 + 5 * len(servers) + 2 * bool(ratio)) + "|")

    def median(turns: list[Turn], what: str) -> float:
        return float(statistics.median(getattr(turn, what) for turn in turns))

    for k in range(len(rounds[0][0])):
        cells = [str(k + 1)]
        both = [[one[i][k] for one in rounds] for i in range(len(servers))]
        for turns in both:
            cells += [f"{median(turns, what):.0f}" for what in ("n_prompt", "n_cached", "n_answer")]
            cells += [f"{median(turns, what):.3f}" for what in ("first", "whole")]
        if ratio:
            for what in ("first", "whole"):
                pairs = [getattr(a, what) / getattr(b, what) for a, b in zip(*both, strict=True)]
                cells.append(f"{statistics.median(pairs):.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    later = [[sum(turn.whole for turn in one[i][1:]) for one in rounds] for i in range(len(servers))]
    told = [f"{server.name} {statistics.median(sums):.2f} s" for server, sums in zip(servers, later, strict=True)]
    if ratio:
        told.append(f"ratio {statistics.median(a / b for a, b in zip(*later, strict=True)):.2f}")
    print(f"\nturns 2 to {len(rounds[0][0])} together: {', '.join(told)}", flush=True)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.agents.turn_times")
    parser.add_argument("--llama-server", type=Path, help="the binary to stand beside; without it llamabox alone")
    parser.add_argument("--model", type=Path, help="a model in GGUF; the demo model without it")
    parser.add_argument("--context", type=int, default=8192, help="tokens of each of two slots")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--tools", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--api", choices=sorted(APIS), nargs="*", default=sorted(APIS))
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder, serving(asked, Path(folder)) as servers:
        for name in asked.api:
            marks = [f"{os.getpid()}{name[0]}{i}" for i in range(asked.rounds)]
            report(name, servers, [play(servers, APIS[name], asked, mark) for mark in marks])


if __name__ == "__main__":
    main(sys.argv[1:])
