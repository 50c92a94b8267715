"""Models whose memory cannot be cut: an edited, regenerated or shortened chat goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.models.memories.tiny import write_hybrid, write_sliding

Write = Callable[[Path, Path], Path]

TALE = "The ferryman counts his coins while the rain falls on the river and nobody comes. "
SYSTEM = {"role": "system", "content": TALE * 12}
OLD = {"role": "user", "content": "Who counts the coins? " + TALE * 4}
EDITED = {"role": "user", "content": "What falls on the river? " + TALE * 4}


@pytest.fixture(scope="module", params=[write_hybrid, write_sliding], ids=["hybrid", "sliding window"])
def server(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Two slots; ubatches so short that a window forgets what is behind it."""
    folder = tmp_path_factory.mktemp("memories")
    path = request.param(folder / "model.gguf", model)
    words = ("--chat-template", "chatml", "-c", "4096", "-np", "2", "-ub", "32", "--slots")
    running = ServerProcess(folder / "log", "-m", str(path), *words)
    yield running
    assert running.stop() == 0
    assert "KV ledger" not in running.log
    path.unlink()


def chat(server: ServerProcess, *messages: dict[str, str], **fields: Any) -> tuple[str, int]:
    """The answer, and how many tokens of the prompt were cached."""
    body = {"messages": messages, "max_tokens": 24, "temperature": 0, **fields}
    reply = server.ok("/v1/chat/completions", body)
    return reply["choices"][0]["message"]["content"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def n_tokens(server: ServerProcess, *messages: dict[str, str]) -> int:
    rendered = server.ok("/apply-template", {"messages": messages})["prompt"]
    return len(server.ok("/tokenize", {"content": rendered, "parse_special": True})["tokens"])


def test_a_changed_chat_starts_from_a_checkpoint_and_answers_as_uncached(server: ServerProcess) -> None:
    uncached, n_cached = chat(server, SYSTEM, EDITED, cache_prompt=False)
    assert n_cached == 0
    first, _ = chat(server, SYSTEM, OLD)
    n_system = n_tokens(server, SYSTEM)
    assert first != uncached
    for id_slot in (0, 1):  # the slot of the first one and another one, whichever that was
        edited, n_cached = chat(server, SYSTEM, EDITED, id_slot=id_slot)
        assert n_cached >= n_system - 8
        assert edited == uncached
    regenerated, n_cached = chat(server, SYSTEM, EDITED)
    assert n_cached >= n_tokens(server, SYSTEM, EDITED) - 16
    assert regenerated == uncached
    answer = {"role": "assistant", "content": first}
    chat(server, SYSTEM, OLD, answer, EDITED)
    shortened, n_cached = chat(server, SYSTEM, OLD)
    assert n_cached >= n_system - 8
    assert shortened == first


def test_chats_that_part_beside_each_other_answer_as_alone(server: ServerProcess) -> None:
    asked = [{"role": "user", "content": f"Tale {i}: {TALE * 2}"} for i in range(6)]
    alone = [chat(server, SYSTEM, one, cache_prompt=False)[0] for one in asked]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: chat(server, SYSTEM, one), asked * 2))
    assert [text for text, _ in together] == alone * 2
    assert sum(n_cached >= 100 for _, n_cached in together) >= 9
