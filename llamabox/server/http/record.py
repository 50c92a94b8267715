"""The log's facts of one request: who, what, how much, how long. Never its text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.types import Scope

from llamabox.engine.events import Timings

KEY = "llamabox.record"

RUNNING: ContextVar[set[RequestRecord]] = ContextVar("running")
"""The requests that run on this connection, as listener.py made it: a client that is cut off is so for all of them."""


class TokenCounts(Protocol):
    """A sequence's token counts."""

    n_prompt: int
    n_cached: int
    timings: Timings


@dataclass(slots=True, eq=False)
class RequestRecord:
    """Made by the outermost middleware, filled on the way."""

    request_id: str
    accepted_us: int  # microseconds since the epoch
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None  # on the clock of `started`
    status: int = 0  # 0: the client was gone before a reply began
    n_sequences: int = 1  # that share each prompt
    asker: str = ""  # stands for the API key that was shown; it does not tell the key; empty: none was asked for
    warnings: list[str] = field(default_factory=list)  # values of the reply's Warning headers
    choices: Sequence[TokenCounts] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # what else there is to tell, in the order of the line
    cut_off: str = ""  # by which limit the client was found too slow to be answered further

    def begin(self) -> bool:
        """The first token is there; False where there was one before."""
        if self.first_token is not None:
            return False
        self.first_token = time.perf_counter()
        return True

    def cut(self, why: str) -> None:
        """The client is cut off. The first limit that it meets is the one to tell."""
        self.cut_off = self.cut_off or why

    def facts(self, method: str, path: str) -> dict[str, Any]:
        """The facts of the request, in the order of the log's line. Times in milliseconds."""
        facts: dict[str, Any] = {
            "id": self.request_id,
            "method": method,
            "route": path,
            "status": self.status or None,
        }
        if self.choices:
            prompts = self.choices[:: self.n_sequences]
            facts["prompt"] = sum(one.n_prompt for one in prompts)
            facts["cached"] = sum(one.n_cached for one in prompts)
            facts["generated"] = sum(one.timings.predicted_n for one in self.choices)
            if n_drafted := sum(one.timings.n_drafted for one in self.choices):
                facts["drafted"] = n_drafted
                facts["accepted"] = sum(one.timings.n_accepted for one in self.choices)
        if self.first_token is not None:
            facts["queue_ms"] = round(max(one.timings.queue_ms for one in self.choices), 1)
            facts["ttft_ms"] = round(1e3 * (self.first_token - self.started), 1)
        facts |= self.notes
        facts["total_ms"] = round(1e3 * (time.perf_counter() - self.started), 1)
        if self.cut_off:
            facts["cut_off"] = self.cut_off
        return facts


def line(facts: dict[str, Any]) -> str:
    """`id POST /completion 200 prompt=8 … total_ms=12.3`, of RequestRecord.facts."""
    head = ("id", "method", "route", "status")
    words = [str(facts[name] or "gone").replace(" ", "%20") for name in head]  # a blank would make two of one
    return " ".join([*words, *(f"{name}={value}" for name, value in facts.items() if name not in head)])


def record_of(scope: Scope) -> RequestRecord:
    """The record that middleware.py put there."""
    record = scope[KEY]
    assert isinstance(record, RequestRecord)
    return record
