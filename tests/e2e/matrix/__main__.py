"""What agents are made of, unmodified, against servers with the demo model: calls, their results, texts, values.

    python -m tests.e2e.matrix [WORD] [--folder DIR]

Installs the packages of PyPI and npm (node 20 or later) into a temporary folder, or into DIR, which a second run finds
again. A line for each check of each client, those clients alone whose name has the WORD; the exit status is 1 where one
failed. The openai package for Python is in the suite: tests/e2e/tools/test_conversations.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from llamabox.demo import ensure_demo_model
from tests.e2e.scripted_model import ARGUMENTS
from tests.e2e.server_process import ServerProcess

HERE = Path(__file__).resolve().parent
PYPI = ("langchain>=1", "langchain-openai>=1", "litellm>=1.80", "llama-index-llms-openai-like>=0.5", "pydantic>=2.5")
LOCAL = {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGCHAIN_TRACING_V2": "false"}
"""What keeps the clients from asking anybody but these servers."""


def python_in(folder: Path) -> list[str]:
    """The interpreter of a virtual environment with the Python clients, which is made where there is none."""
    found = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / "installed").exists():
        venv.create(folder / "venv", with_pip=True, clear=True)
        subprocess.run([found, "-m", "pip", "install", "-q", *PYPI], check=True)
        (folder / "venv" / "installed").touch()
    return [str(found)]


def node_in(folder: Path) -> list[str]:
    """node, with the packages of package.json beside the scripts, which are copied to them."""
    shutil.copytree(HERE / "node", folder / "node", dirs_exist_ok=True)
    if not (folder / "node" / "node_modules").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=folder / "node", check=True)
    return ["node"]


WITHIN = 300.0
"""Seconds for all checks of a client."""

CLIENTS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], Path]]] = {
    "langchain": (python_in, lambda folder: HERE / "python" / "with_langchain.py"),
    "llama_index": (python_in, lambda folder: HERE / "python" / "with_llama_index.py"),
    "litellm": (python_in, lambda folder: HERE / "python" / "with_litellm.py"),
    "openai for node": (node_in, lambda folder: folder / "node" / "with_openai.mjs"),
    "openai's responses for node": (node_in, lambda folder: folder / "node" / "with_openai_responses.mjs"),
    "anthropic for node": (node_in, lambda folder: folder / "node" / "with_anthropic.mjs"),
    "ai sdk": (node_in, lambda folder: folder / "node" / "with_ai_sdk.mjs"),
}


def run(folder: Path, word: str) -> int:
    """Start the servers and let each client talk to them. Returns the number of clients that failed."""
    asked = {name: made for name, made in CLIENTS.items() if word in name}
    commands = {name: [*install(folder), str(script(folder))] for name, (install, script) in asked.items()}
    model = ("-m", str(ensure_demo_model(progress=False)), "-t", "1")
    scripted = ServerProcess(folder / "scripted.log", *model, *ARGUMENTS)
    free = ServerProcess(folder / "free.log", *model, "-c", "8192", "-np", "2", "--chat-template", "chatml")
    small = ServerProcess(folder / "small.log", *model, "-c", "4096", "-np", "1", "--max-waiting", "1", "--metrics")
    urls = [server.url for server in (scripted, free, small)]
    n_failed = 0
    with scripted, free, small:
        for name, command in commands.items():
            print(f"{name}:", flush=True)
            environment = {**os.environ, **LOCAL}
            try:
                ended = subprocess.run([*command, *urls], env=environment, timeout=WITHIN)
                n_failed += ended.returncode != 0
            except subprocess.TimeoutExpired:
                print(f"FAIL it takes longer than {WITHIN} s", flush=True)
                n_failed += 1
    print(f"{len(commands) - n_failed} clients passed, {n_failed} failed")
    return n_failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.matrix")
    parser.add_argument("word", nargs="?", default="", help="only clients with this in their name")
    parser.add_argument("--folder", type=Path, help="where the packages are, or will be")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        return 1 if run(given.folder.resolve(), given.word) else 0
    with tempfile.TemporaryDirectory() as folder:
        return 1 if run(Path(folder), given.word) else 0


if __name__ == "__main__":
    sys.exit(main())
