"""Texts that repeat are drafted from what is at hand, and come out as without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamabox.engine.drafting.lookup.cache_file import decode
from llamabox.engine.drafting.lookup.counts import tokens_of
from tests.e2e.server_process import ServerProcess, free_port
from tests.e2e.speculation.drafted import n_accepted, until_drafted

RHYME = "The red fox met the grey goose by the old stone bridge, and they shared bread until the moon came up.\n"
COPYING = RHYME * 3 + RHYME[:19]
STORY = "A short story about a lighthouse keeper:\n"

Serve = Callable[..., ServerProcess]


def complete(server: ServerProcess, prompt: str, key: str = "", **fields: Any) -> dict[str, Any]:
    """A greedy completion of the prompt, which is not kept: so each comes out of the same computation."""
    body = {"prompt": prompt, "n_predict": 48, "temperature": 0, "cache_prompt": False, **fields}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = server.http.post("/completion", json=body, headers=headers)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def from_corpus(server: ServerProcess, key: str = "") -> int:
    """Tokens accepted of drafts from finished answers."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for line in server.http.get("/metrics", headers=headers).text.splitlines():
        if line.startswith('llamabox:draft_tokens_accepted_total{source="corpus"}'):
            return int(float(line.rsplit(" ", 1)[1]))
    return 0


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve("--metrics")


def test_a_copying_answer_is_drafted_from_its_prompt(server: ServerProcess) -> None:
    drafted = until_drafted(lambda: complete(server, COPYING), more_than=8)
    assert RHYME[19:60] in drafted["content"]
    plain = complete(server, COPYING, **{"speculative.n_max": 0})
    assert n_accepted(plain) == 0
    assert plain["content"] == drafted["content"]


def test_an_answer_given_before_is_drafted_from_it(server: ServerProcess) -> None:
    first = complete(server, STORY)
    again = until_drafted(lambda: complete(server, STORY), more_than=4)
    assert again["content"] == first["content"]
    assert from_corpus(server) > 4


def test_what_the_client_foresees_is_drafted(server: ServerProcess) -> None:
    message = {"role": "user", "content": "What is the capital of France, and what is it known for?"}
    body = {"messages": [message], "max_tokens": 40, "temperature": 0, "speculative.n_max": 0}
    plain = server.ok("/v1/chat/completions", body)
    said = plain["choices"][0]["message"]["content"]
    foreseen = {**body, "speculative.n_max": -1, "prediction": {"type": "content", "content": said}}
    drafted = until_drafted(lambda: server.ok("/v1/chat/completions", foreseen), more_than=8)
    assert drafted["choices"][0]["message"]["content"] == said


def test_one_key_s_answers_help_no_other(serve: Serve) -> None:
    server = serve("--metrics", "--api-key", "mine,yours")
    complete(server, STORY, "mine")
    theirs = complete(server, STORY, "yours")
    assert from_corpus(server, "mine") == 0
    again = until_drafted(lambda: complete(server, STORY, "mine"), count=lambda _: from_corpus(server, "mine"))
    assert again["content"] == theirs["content"]


def test_a_dynamic_lookup_cache_is_written_at_the_end_and_a_damaged_one_refused_at_the_start(
    model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    words = ("-m", str(model), "--spec-type", "ngram-cache", "-lcd", str(cache))
    with ServerProcess(tmp_path / "log", *words) as server:
        first = complete(server, STORY)
        drafted = until_drafted(lambda: complete(server, STORY))  # from the third on: what was said once proves nothing
        assert server.stop() == 0
    assert drafted["content"] == first["content"]
    said = decode(cache.read_bytes(), 49_152)
    assert {len(tokens_of(gram)) for gram in said} == {1, 2, 3, 4}
    cache.write_bytes(cache.read_bytes()[:-4])
    command = [sys.executable, "-m", "llamabox", "--port", str(free_port()), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if "lookup cache that can be used" in line]
    assert f"-lcd {cache} is no lookup cache that can be used: it ends amid the entry at byte" in line
