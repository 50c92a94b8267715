"""The load: prompts that no cache has seen, and clients that send one request after the other."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

from llamabox.bench.client import RequestOutcome, Target, stream

SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu", "an", "or", "el")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """What one request is like. Lengths of prompts are in words of two syllables, one to three tokens each."""

    model: str
    n_words: int = 32  # of its own
    n_shared: int = 0  # at the beginning, the same in all requests
    n_tokens: int = 64  # to be generated
    chat: bool = False
    temperature: float = 0.8
    seed: int = 0


def words(seed: str, n: int) -> str:
    """`n` made-up words; the same seed gives the same ones."""
    draw = random.Random(seed)
    return " ".join(draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(n))


def request(shape: RequestShape, salt: str, index: int) -> tuple[str, dict[str, Any]]:
    """Path and body of the `index`-th request. Prompts differ by `salt` and index, but for the shared beginning."""
    prompt = f"{words(f'{salt} shared', shape.n_shared)} {words(f'{salt} {index}', shape.n_words)}".strip()
    body: dict[str, Any] = {
        "model": shape.model,
        "max_tokens": shape.n_tokens,
        "temperature": shape.temperature,
        "seed": shape.seed + index,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,  # so that every answer has the same length; servers without it may answer shorter
    }
    if shape.chat:
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": prompt}]}
    return "/v1/completions", {**body, "prompt": prompt}


async def run(
    server: Target, shape: RequestShape, salt: str, *, n_clients: int, n_requests: int
) -> tuple[list[RequestOutcome], float]:
    """`n_clients` work off `n_requests`, each sending its next when its last is answered. Also returns the seconds."""
    waiting = [request(shape, salt, index) for index in reversed(range(n_requests))]
    outcomes: list[RequestOutcome] = []

    async def client() -> None:
        while waiting:
            outcomes.append(await stream(server, *waiting.pop()))

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return outcomes, time.perf_counter() - start
