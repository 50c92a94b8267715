"""A task for a real agent, with a model whose answers are known: it reads a file, changes it, and reports.

Agents come from npm into a folder of their own, and talk to nobody but the server.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.demo import ensure_demo_model
from tests.e2e.scripted_model import begun, grammar_of, template_of
from tests.e2e.server_process import ServerProcess

WITHIN = 300.0
"""Seconds for the whole conversation."""

START = 60
"""Characters of an answer that the prompt begins, behind which only that one goes on."""

CONTEXT = 8192
"""Tokens of context of the demo model."""

FILE = "hello.py"
BEFORE, AFTER = 'print("Helo")\n', 'print("Hello")\n'
TASK = f"Mend the greeting in {FILE}."
REPORT = "The greeting is mended."

Json = dict[str, Any]


def install(folder: Path, package: str, command: str) -> str:
    """The command of a package of npm's, which is installed where it is not there yet."""
    found = folder / "node_modules" / ".bin" / command
    if not found.exists():
        (folder / "package.json").write_text('{"private": true}')
        options = ("--no-audit", "--no-fund", "--no-package-lock", "--silent")
        subprocess.run(["npm", "install", *options, package], cwd=folder, check=True)
    return str(found)


@dataclass(frozen=True, slots=True)
class Agent:
    """What differs between agents. `command` is given the folder, the environment and the server's address."""

    route: str
    reading: Callable[[Path], str]  # the model's answers, for a file
    changing: Callable[[Path], str]
    command: Callable[[Path, dict[str, str], str], list[str]]
    faults: Callable[[list[Json]], list[str]]  # what is wrong in the transcript


def prompts(log: str, route: str) -> list[tuple[int, int]]:
    """Tokens of each prompt, and those that were resident, by the server's access log."""
    found = re.findall(rf"POST {re.escape(route)}\S* 200 prompt=(\d+) cached=(\d+)", log)
    return [(int(n), int(cached)) for n, cached in found]


def mend(agent: Agent, folder: Path, work: Path) -> list[str]:
    """Let the agent mend the file in `work`. What is wrong; empty where all is well."""
    (work / FILE).write_text(BEFORE)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "NO_PROXY": "127.0.0.1"}
    answers = [agent.reading(work / FILE), agent.changing(work / FILE), REPORT]
    n_results = "(messages | selectattr('role', 'equalto', 'tool') | list | length)"
    cases = [(f"{n_results} == {i}", answer[:START]) for i, answer in enumerate(answers)]
    grammar = grammar_of(answers)
    options = (
        "-c",
        str(CONTEXT),
        "-np",
        "1",
        "--top-k",
        "1",
        "--grammar",
        grammar,
        "--chat-template",
        template_of(cases),
    )
    with ServerProcess(folder / "server.log", "-m", str(ensure_demo_model(progress=False)), *options) as server:
        ended = subprocess.run(
            [*agent.command(folder, environment, server.url), TASK],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN,
        )
        log = server.log
        n_begun = [len(server.ok("/tokenize", {"content": begun(answer[:START])})["tokens"]) for answer in answers]
    events = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    for event in events:
        print(json.dumps(event)[:400])
    found = prompts(log, agent.route)
    for i, (n_tokens, n_cached) in enumerate(found, 1):
        print(f"prompt {i}: {n_tokens} tokens, {n_cached} of them resident")
    wrong = [*agent.faults(events), *unlike(found, n_begun)]
    if (text := (work / FILE).read_text()) != AFTER:
        wrong.append(f"the file is {text!r}")
    return [*wrong, ended.stderr[-2000:], log[-4000:]] if wrong else []


def unlike(found: Sequence[tuple[int, int]], n_begun: Sequence[int]) -> list[str]:
    """What is wrong with the prompts: there is one for each answer, and each begins with the one before, but for the
    end of that, which says how its answer begins: `n_begun` tokens.
    """
    wrong = []
    if len(found) != 3:
        wrong.append(f"{len(found)} prompts in place of 3")
    for ((before, _), (_, cached)), end in zip(itertools.pairwise(found), n_begun, strict=False):
        if cached < 0.98 * (before - end):
            wrong.append(f"{cached} tokens are resident behind a prompt of {before}, {end} of which do not come again")
    return wrong


def run(name: str, agent: Agent, words: list[str]) -> int:
    """The exit status of `python -m tests.e2e.agents.<name>`: 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.e2e.agents.{name}")
    parser.add_argument("--folder", type=Path, help="where the agent is, or will be")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as work:
        folder = (asked.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wrong = mend(agent, folder, Path(work))
    print("\n".join(wrong) or "all is well")
    return 1 if wrong else 0
