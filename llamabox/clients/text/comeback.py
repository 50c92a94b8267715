"""Requests, and the start of the next worker, after the death of a worker that computes on RPC servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from llamabox.clients.suspects import Suspects
from llamabox.clients.text.generation import Generation
from llamabox.clients.text.rpc_servers import RpcServers
from llamabox.wire.text import Embed, Submit

MAX_HOLD = 60.0
"""Seconds for which requests that had not begun when a worker died wait for the next one."""


class Comeback:
    """Holds requests over a worker's death. Belongs to the event loop. Without RPC servers they fail, as suspects."""

    def __init__(self, endpoints: Sequence[str], suspects: Suspects, notify: Callable[[], None]) -> None:
        """`notify` is called when `trouble` has changed."""
        self.trouble = ""  # what the next worker waits for, as a sentence
        self._servers = RpcServers(endpoints)
        self._suspects = suspects
        self._notify = notify
        self._on_trial: list[Submit | Embed] = []
        self._giving_up: asyncio.TimerHandle | None = None

    async def first(self) -> None:
        """Before the first load. Raises OptionsError with every server that will not do, and why."""
        await self._servers.check()

    async def again(self) -> None:
        """After a death: returns when all servers are there. If one was not, that is what the worker died of."""
        if not self._servers.endpoints:
            return
        were_away = await self._servers.wait(self._tell)
        self._tell("")
        on_trial, self._on_trial = self._on_trial, []
        if not were_away:
            self._suspects.add(on_trial)

    def died(self, in_flight: Iterable[Submit | Embed], give_up: Callable[[], None]) -> None:
        """A worker that was READY is gone. `give_up` is called after MAX_HOLD, unless another is ready before."""
        if not self._servers.endpoints:
            self._suspects.add(in_flight)
            return
        self._on_trial = list(in_flight)
        self.resume()
        self._giving_up = asyncio.get_running_loop().call_later(MAX_HOLD, give_up)

    def holds(self, generation: Generation) -> bool:
        """Whether a generation that has not begun waits for the next worker: a machine that went away may come back."""
        return self._giving_up is not None and not generation.has_begun

    def resume(self) -> None:
        """A worker is ready, or died: requests that wait are not given up any more."""
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        self._notify()
