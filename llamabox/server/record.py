"""What the log tells of one request: who, what, how much, how long. Never its text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Scope

KEY = "llamabox.record"


class Counted(Protocol):
    """A sequence's token counts."""

    n_prompt: int
    n_cached: int
    n_predicted: int


@dataclass(slots=True)
class RequestRecord:
    """Made by the outermost middleware, filled on the way."""

    request_id: str
    accepted_us: int  # microseconds since the epoch
    started: float = field(default_factory=time.perf_counter)
    status: int = 0  # 0: the client was gone before a reply began
    n_sequences: int = 1  # that share each prompt
    choices: Sequence[Counted] = ()

    def line(self, method: str, path: str) -> str:
        """For the log."""
        elapsed_ms = 1e3 * (time.perf_counter() - self.started)
        words = f"{self.request_id} {method} {path} {self.status or 'gone'}"
        if self.choices:
            prompts = self.choices[:: self.n_sequences]
            words += (
                f" prompt={sum(one.n_prompt for one in prompts)} cached={sum(one.n_cached for one in prompts)}"
                f" generated={sum(one.n_predicted for one in self.choices)}"
            )
        return f"{words} {elapsed_ms:.0f} ms"


def record_of(scope: Scope) -> RequestRecord:
    """The record that middleware.py put there."""
    record = scope[KEY]
    assert isinstance(record, RequestRecord)
    return record
