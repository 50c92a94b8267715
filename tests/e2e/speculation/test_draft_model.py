"""A server with a draft model: who it is, what it guesses, and what ends the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.server_process import ServerProcess
from tests.suite.ports import free_port

PROMPTS = ("Once upon a time there was", "The capital of France is", "def fib(n):\n", "Dear Sir, I am writing because")


def test_texts_are_those_without_the_draft_model_that_is_loaded_beside(
    serve: Callable[..., ServerProcess], model: Path
) -> None:
    server = serve("-md", str(model), "--spec-type", "draft-simple", "--metrics", "--parallel", "4")
    assert server.http.get("/props").json()["draft_model"]["path"] == str(model)

    def say(prompt: str, **fields: Any) -> str:
        body = {"prompt": prompt, "n_predict": 40, "temperature": 0, "cache_prompt": False, **fields}
        return str(server.ok("/completion", body)["content"])

    plain = [say(prompt, **{"speculative.n_max": 0}) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert list(pool.map(say, PROMPTS)) == plain
    metrics = server.http.get("/metrics").text
    [accepted] = [line for line in metrics.splitlines() if line.startswith("llamabox:draft_tokens_accepted_total{")]
    assert 'source="model"' in accepted
    assert float(accepted.rsplit(" ", 1)[1]) > 0, "it was tried, whether it pays or not"


def test_a_file_that_is_no_draft_model_ends_the_start_with_a_line_that_says_why(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.gguf"
    other.write_text("what I meant to buy\n")
    command = [sys.executable, "-m", "llamabox", "--port", str(free_port()), "-m", str(model), "-md", str(other)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    *_, why, advice = ended.stderr.splitlines()
    assert advice.endswith("see: python -m llamabox doctor")
    assert why.endswith(
        f"--model-draft: {other} cannot be loaded: it is not a GGUF file (the first four bytes are not GGUF)"
    )
    assert ended.stderr.count("notes.gguf") == 1
