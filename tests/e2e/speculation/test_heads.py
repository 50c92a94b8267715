"""A server whose model brings heads of multi-token prediction: they draft, and texts stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.speculation.drafted import until_drafted
from tests.models.drafts.heads import FIRST, write_knowing_by_token

N_LAYER = 32
"""So many that drafts pay."""

PROMPTS = tuple([FIRST + 700 + 13 * i + 1001 * k for i in range(20 + 7 * k)] for k in range(4))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("heads")
    path = write_knowing_by_token(folder / "model.gguf", model, N_LAYER)
    words = ("-t", "1", "-tb", "1", "-c", "1024", "-np", "4", "--spec-type", "draft-mtp", "--metrics", "--slots")
    running = ServerProcess(folder / "log", "-m", str(path), *words)
    yield running
    assert running.stop() == 0
    assert "KV ledger" not in running.log
    path.unlink()


def say(server: ServerProcess, prompt: list[int], **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "n_predict": 60, "temperature": 0, "return_tokens": True, **fields}
    reply: dict[str, Any] = server.ok("/completion", body)
    return reply


def test_the_models_heads_draft_and_change_no_text(server: ServerProcess) -> None:
    plain = [say(server, prompt, **{"speculative.n_max": 0})["tokens"] for prompt in PROMPTS]
    assert all(len(tokens) == 60 for tokens in plain)
    drafted = until_drafted(lambda: say(server, PROMPTS[0]))
    assert drafted["tokens"] == plain[0]
    assert drafted["timings"]["draft_n_accepted"] == drafted["timings"]["draft_n"]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        found = list(pool.map(lambda prompt: say(server, prompt), PROMPTS))
    assert [reply["tokens"] for reply in found] == plain
    metrics = server.http.get("/metrics").text
    [accepted] = [line for line in metrics.splitlines() if line.startswith("llamabox:draft_tokens_accepted_total{")]
    assert 'source="mtp"' in accepted
    assert "the model drafts with its head of multi-token prediction" in server.log
