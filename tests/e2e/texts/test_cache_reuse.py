"""n_cache_reuse with a real model: moved cells are counted, and the text they are part of still makes sense."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.model

Serve = Callable[..., ServerProcess]

HEAD = "A short list of countries and their capitals follows. "
MIDDLE = "The list was written by a clerk who liked long walks, warm bread and the sound of rain on a tin roof. "
TAIL = "Germany: Berlin. Italy: Rome. Spain: Madrid. Portugal: Lisbon. Greece: Athens. Austria: Vienna. France:"


def ask(server: ServerProcess, prompt: str, **fields: object) -> tuple[int, int, str]:
    """Cached and computed prompt tokens, and the answer."""
    reply = server.ok("/completion", {"prompt": prompt, "n_predict": 3, "temperature": 0, **fields})
    timings = reply["timings"]
    assert timings["cache_n"] + timings["prompt_n"] == reply["tokens_evaluated"]
    return timings["cache_n"], timings["prompt_n"], reply["content"]


@pytest.mark.parametrize("memory", ["--kv-unified", "--no-kv-unified"])
def test_what_follows_a_piece_that_is_left_out_is_not_computed_again(serve: Serve, memory: str) -> None:
    server = serve("-np", "2", "-c", "2048", memory)
    _, n_whole, content = ask(server, HEAD + MIDDLE + TAIL)
    assert "Paris" in content
    n_exact, n_computed, content = ask(server, HEAD + TAIL, id_slot=1)
    assert n_computed > 20
    assert "Paris" in content
    n_cached, n_computed, content = ask(server, HEAD + TAIL, id_slot=0, n_cache_reuse=8)
    assert n_cached > n_exact + 20
    assert n_computed < 8
    assert "Paris" in content
    n_again, n_computed, content = ask(server, HEAD + TAIL + " Paris. Norway:", id_slot=0, n_cache_reuse=8)
    assert n_again > n_cached
    assert "Oslo" in content
    assert n_whole > 40
    server.wait_idle()
    assert "KV ledger" not in server.log


def test_the_command_line_turns_it_on_for_everybody(serve: Serve) -> None:
    server = serve("-np", "1", "-c", "1024", "--no-cache-prompt", "--cache-reuse", "8")
    ask(server, HEAD + MIDDLE + TAIL)
    n_cached, n_computed, content = ask(server, HEAD + TAIL)
    assert n_cached > 20
    assert n_computed < 8
    assert "Paris" in content
    assert ask(server, HEAD + MIDDLE, cache_prompt=False)[0] == 0
