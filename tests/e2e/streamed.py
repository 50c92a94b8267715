"""The tokens of a streamed /completion, for tests in which many clients stream at once."""

from __future__ import annotations

import json
from typing import Any

import httpx


async def streamed(http: httpx.AsyncClient, body: dict[str, Any], leave_after: int | None = None) -> list[int]:
    """All tokens, or, with `leave_after`, those up to so many events: then the client is gone."""
    tokens: list[int] = []
    async with http.stream("POST", "/completion", json={**body, "stream": True}) as response:
        assert response.status_code == 200
        n_events = 0
        if leave_after == 0:
            return tokens
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            tokens += event["tokens"]
            n_events += 1
            if n_events == leave_after:
                break
    return tokens
