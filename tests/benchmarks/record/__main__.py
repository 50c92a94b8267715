"""The bench of record: two servers side by side, with the formats and sizes that people run.

    python -m tests.benchmarks.record \\
        --a 'llama-server -m {model} --port {port} -np {slots} -c {cells} -t {threads}' \\
        --b 'python -m llamabox -m {model} --port {port} -np {slots} -c {cells} -t {threads}'

Either may be anything that speaks the OpenAI API with token ids as prompts: another commit of ours, with its own
interpreter, for one. Models are made with random weights once (tests/models/shaped) and stay in --folder; a name that
ends with .gguf is a file. Both servers of a model are up at the same time and are asked the same in turn.

A cell is `A → B, **B/A** (lowest–highest of the rounds)`, then the part of what this machine can do at the most, which
is measured first: of decodes the bytes of weights that they read, of the speed of its memory; of prompts the products
that they take, of those of bytes. Where a step has several texts their weights are counted once. Each model is a line
as soon as it is measured, and --json has every round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from llamabox.bench.client import target
from llamabox.errors import LlamaboxError
from tests.benchmarks.record.loads import HOST, LOADS, Column, Figures, Load
from tests.benchmarks.record.machine import measure
from tests.benchmarks.record.servers import Command, Server
from tests.benchmarks.record.subjects import USUAL, Subject, subject
from tests.benchmarks.record.table import MEMORY, READY, Pair, heading, row

START = "start"
"""The load of being started, whose figures are the seconds until it is ready, and its memory after a request."""

ALL = ",".join((*LOADS, START))

Rounds = dict[str, list[Pair]]
"""By `load.figure`."""


def main(given: Sequence[str]) -> int:
    asked = parser().parse_args(given)
    commands = Command(asked.a, asked.threads), Command(asked.b, asked.threads)
    asked.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped with us
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            machine = None if asked.without_machine else measure(asked.threads, folder)
            subjects = [subject(one, asked.folder) for one in asked.models]
            columns = columns_of(asked.loads, subjects)
            print(f"{machine or 'The machine was not measured.'}\n\n{heading(columns)}", flush=True)
            report = {}
            for one in subjects:
                rounds = measured(commands, one, asked.loads, asked.rounds, asked.salt, folder)
                report[one.name] = rounds
                print(row(one, columns, rounds, machine), flush=True)
        except (LlamaboxError, RuntimeError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.record",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--a", required=True, metavar="COMMAND", help="the server that is 1")
    found.add_argument("--b", required=True, metavar="COMMAND", help="the one that is compared with it")
    found.add_argument("--models", type=_names, default=USUAL, metavar="NAME,…", help=f"default: {USUAL}")
    found.add_argument("--loads", type=_loads, default=ALL, metavar="NAME,…", help=f"default: {ALL}")
    found.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    found.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="default: all")
    found.add_argument("--salt", default="0", metavar="TEXT", help="other prompts")
    found.add_argument("--folder", type=Path, default=Path.home() / ".cache/llamabox/models/shaped", metavar="DIR")
    found.add_argument("--without-machine", action="store_true", help="do not measure the machine; without shares")
    found.add_argument("--json", type=Path, metavar="FILE", help="write every round to this file")
    return found


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _loads(text: str) -> list[str]:
    names = _names(text)
    for name in names:
        if name not in LOADS and name != START:
            raise argparse.ArgumentTypeError(f"there is no load {name}: there are {ALL}")
    return names


def columns_of(names: Sequence[str], subjects: Sequence[Subject]) -> dict[str, Column]:
    """The table's, without those that are for none of the models."""
    found: dict[str, Column] = {}
    for name in names:
        if name == START:
            found |= {f"{START}.ready_s": READY, f"{START}.memory": MEMORY}
        elif any(one.is_encoder is LOADS[name].for_encoders for one in subjects):
            found |= {f"{name}.{key}": column for key, column in LOADS[name].columns.items()}
    return found


def measured(
    commands: tuple[Command, Command], one: Subject, names: Sequence[str], n_rounds: int, salt: str, folder: Path
) -> Rounds:
    """All rounds of a model. Loads that want servers of the same size share them."""
    fit = {name: LOADS[name] for name in names if name != START and LOADS[name].for_encoders is one.is_encoder}
    rounds: Rounds = {}
    _read(one.path)
    if START in names:
        rounds |= starts(commands, one, n_rounds, folder)
    for size in dict.fromkeys((load.n_slots, load.n_cells) for load in fit.values()):
        loads = {name: load for name, load in fit.items() if (load.n_slots, load.n_cells) == size}
        with ExitStack() as stack:
            servers = [stack.enter_context(_started(command, one, size, folder)) for command in commands]
            for load in loads.values():  # what is slow the first time
                for server in servers:
                    ask(load, server, one, "warm")
            for name, load in loads.items():
                rounds |= asked_in_turn(servers, one, name, load, n_rounds, salt)
    return rounds


def starts(commands: tuple[Command, Command], one: Subject, n_rounds: int, folder: Path) -> Rounds:
    """Start each, alone, in turn, and ask it something."""
    load = LOADS["embed_short" if one.is_encoder else "decode1"]
    ready: list[Pair] = []
    memory: list[Pair] = []
    for number in range(n_rounds):
        found: dict[int, tuple[float, float]] = {}
        for at in _turns(number):
            with _started(commands[at], one, (load.n_slots, load.n_cells), folder) as server:
                ask(load, server, one, f"{START} {number}")
                found[at] = server.ready_s, server.memory / (1 << 20)
        ready.append((found[0][0], found[1][0]))
        memory.append((found[0][1], found[1][1]))
    return {f"{START}.ready_s": ready, f"{START}.memory": memory}


def asked_in_turn(servers: Sequence[Server], one: Subject, name: str, load: Load, n_rounds: int, salt: str) -> Rounds:
    rounds: Rounds = {}
    for number in range(n_rounds):
        found = {}
        for at in _turns(number):
            found[at] = ask(load, servers[at], one, f"{salt} {name} {number}")
        for key in found[0]:
            rounds.setdefault(f"{name}.{key}", []).append((found[0][key], found[1][key]))
    return rounds


def ask(load: Load, server: Server, one: Subject, salt: str) -> Figures:
    """One round of a load."""
    return asyncio.run(load.ask(target(f"http://{HOST}:{server.port}"), one, salt))


def _turns(number: int) -> tuple[int, int]:
    return (0, 1) if number % 2 == 0 else (1, 0)


def _started(command: Command, one: Subject, size: tuple[int, int], folder: Path) -> Server:
    return command.start(one, *size, folder)


def _read(path: Path) -> None:
    """So that no server has to read it from the disk."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
