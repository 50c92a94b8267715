"""The RPC servers of one model, as the server process watches over them: all must be there before a worker loads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from llamabox.clients.text.rpc_probe import PROTOCOL, RpcServer, Unusable, probe
from llamabox.errors import OptionsError

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0
"""Seconds between two rounds of questions while a server is away."""


class RpcServers:
    """The endpoints, `host:port` each, and what is known of them. Belongs to the event loop."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self.endpoints = tuple(endpoints)

    async def check(self) -> None:
        """Before the first load. Raises OptionsError with every server that will not do, and why."""
        found, away = await self._ask()
        if away:
            raise OptionsError("; ".join(f"--rpc {endpoint}: {reason}" for endpoint, reason in away.items()))
        for server in found:
            for index, (free, total) in enumerate(server.memory):
                logger.info(
                    "RPC server %s, device %d: %d MiB, %d MiB free", server.endpoint, index, total >> 20, free >> 20
                )
            if server.version != PROTOCOL:
                logger.warning(
                    "the RPC server %s speaks protocol %s, this side %s: build both from the same llama.cpp",
                    server.endpoint,
                    ".".join(map(str, server.version)),
                    ".".join(map(str, PROTOCOL)),
                )

    async def wait(self, tell: Callable[[str], None]) -> bool:
        """Returns when all are there: whether one was missing at first. `tell` gets a sentence at each change."""
        tell(f"Asking the RPC servers {', '.join(self.endpoints)}")
        pause, was_away, told = FIRST_PAUSE, False, ""
        while away := (await self._ask())[1]:
            was_away = True
            sentence = "; ".join(f"The RPC server {endpoint} is away: {reason}" for endpoint, reason in away.items())
            tell(sentence)
            if sentence != told:
                logger.warning("%s", sentence)
                told = sentence
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if was_away:
            logger.info("the RPC servers are back: %s", ", ".join(self.endpoints))
        return was_away

    async def _ask(self) -> tuple[list[RpcServer], dict[str, str]]:
        """The servers that can be used, and for each other endpoint the reason against it."""
        answers = await asyncio.gather(*map(probe, self.endpoints), return_exceptions=True)
        found: list[RpcServer] = []
        away: dict[str, str] = {}
        for endpoint, answer in zip(self.endpoints, answers, strict=True):
            match answer:
                case RpcServer():
                    found.append(answer)
                case Unusable():
                    away[endpoint] = str(answer)
                case _:
                    raise answer
        return found, away
