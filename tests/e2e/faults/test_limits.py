"""Ends that a text editor asks for: with the block, and with the line when time is up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.server_process import ServerProcess

LINES = "Count, one number in each line:\n1\n2\n3\n4\n"


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "1024", "-np", "2")


def test_time_is_up_at_the_end_of_a_line(server: ServerProcess) -> None:
    body = {"prompt": LINES, "n_predict": 200, "temperature": 0, "ignore_eos": True, "t_max_predict_ms": 1}
    answer = server.ok("/completion", body)
    assert answer["stop_type"] == "limit"
    assert answer["tokens_predicted"] < 200
    assert answer["content"].rstrip(" ").endswith("\n")
    assert answer["timings"]["predicted_ms"] > 1


def test_the_block_ends_where_it_is_not_indented(server: ServerProcess) -> None:
    body = {"prompt": LINES, "n_predict": 60, "temperature": 0, "ignore_eos": True}
    free = server.ok("/completion", body)["content"]
    assert "\n" in free
    block = server.ok("/completion", {**body, "n_indent": 4})
    assert block["content"] == free[: free.index("\n") + 1]
    assert block["stop_type"] == "limit"
    streamed = "".join(chunk["content"] for chunk in server.stream("/completion", {**body, "n_indent": 4}))
    assert streamed == block["content"]
