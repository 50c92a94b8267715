"""A stream's headers with a real model: they are there while its prompt is being computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.model

LONG = "The quick brown fox jumps over the lazy dog. " * 60

ROUTES: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": LONG, "n_predict": 2},
    "/v1/completions": {"prompt": LONG, "max_tokens": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 2},
}


@pytest.mark.parametrize("path", ROUTES)
def test_headers_are_there_before_the_prompt_is_through(serve: Callable[..., ServerProcess], path: str) -> None:
    server = serve("-np", "1", "-c", "1024", "-b", "64")
    body = {**ROUTES[path], "stream": True, "cache_prompt": False}
    with server.http.stream("POST", path, json=body) as response:
        lines = response.iter_lines()
        assert (response.status_code, next(lines)) == (200, ":")
        [slot] = server.http.get("/slots").json()
        assert slot["is_processing"]
        assert slot["next_token"][0]["n_decoded"] == 0
        assert any(line.startswith("data: ") for line in lines)
    server.wait_idle()
