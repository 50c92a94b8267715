"""The loads of the table: what is asked of a server, and the figure that comes of it.

Every round has prompts of its own, which no cache has seen, and both servers are asked the same.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from llamabox.bench.client import RequestOutcome, Target, stream
from llamabox.bench.figures import figures
from llamabox.bench.load import RequestShape, run
from tests.benchmarks.record.machine import Machine
from tests.benchmarks.record.subjects import Subject

HOST = "127.0.0.1"
N_TOKENS = 64
N_BEFORE = 2048
N_PROMPT = 512
FIRST_TOKEN = 256
"""Of random prompts: what comes before are the marks of a vocabulary."""

TEXT = (
    "the river was high and our old house stood near it so we went out to see how far water had come when night fell "
    "some men were there before us with boats they said that all would be well if no more rain came but few believed "
    "them because every year since my father was young spring had brought more than anyone could remember"
)
WORDS = TEXT.split()
"""Plain ones: an encoder's vocabulary has them whole."""

Figures = dict[str, float]
"""What a round gave, by the names of columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a load. `share` makes the part of what this machine can do at the most out of the load's figure
    `basis`, or is None."""

    title: str
    decimals: int = 1
    share: Callable[[Subject, Machine, float], float] | None = None
    basis: str = "tok_s"


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server of `n_slots` slots with `n_cells` tokens each."""

    ask: Callable[[Target, Subject, str], Coroutine[Any, Any, Figures]]
    columns: Mapping[str, Column]
    n_slots: int = 8
    n_cells: int = 1024
    for_encoders: bool = False


def of_reading(n_rows: int) -> Callable[[Subject, Machine, float], float]:
    """The part of the memory's speed that so many steps a second take, with `n_rows` texts each."""
    return lambda subject, machine, steps_s: steps_s * subject.n_read(n_rows) / machine.read


def of_multiplying(subject: Subject, machine: Machine, tok_s: float) -> float:
    """The part of the multiplier's peak that so many tokens of prompts a second take."""
    return tok_s * subject.n_products / machine.products


async def decode(target: Target, subject: Subject, salt: str, *, n_clients: int, n_each: int) -> Figures:
    """Short prompts and 64 tokens each. Tokens per second of the whole run, prompts included."""
    shape = RequestShape(model="m", n_words=24, n_tokens=N_TOKENS)
    outcomes, seconds = await run(target, shape, salt, n_clients=n_clients, n_requests=n_clients * n_each)
    found = figures(n_clients, _checked(outcomes), seconds)
    return {"tok_s": found.tok_s, "ttft_p95_ms": found.ttft_p95_ms, "steps_s": 1e3 / found.gap_p50_ms}


async def prompt(target: Target, subject: Subject, salt: str) -> Figures:
    """Tokens of a prompt per second until its first token is there."""
    [one] = _checked([await _complete(target, subject, salt, N_PROMPT, 1)])
    return {"tok_s": N_PROMPT / (one.done - one.sent)}


async def behind(target: Target, subject: Subject, salt: str) -> Figures:
    """Tokens per second behind a long prompt, without the time that this takes."""
    [one] = _checked([await _complete(target, subject, salt, N_BEFORE, N_TOKENS)])
    return {"tok_s": (one.n_tokens - 1) / (one.done - one.stamps[0])}


async def embed(target: Target, subject: Subject, salt: str, *, n_words: int, n_inputs: int) -> Figures:
    """Four clients that send four requests each, of several texts. Texts per second."""
    n_clients, n_each = 4, 4
    bodies = [
        {"model": "m", "input": [_text(f"{salt} {i} {j}", n_words) for j in range(n_inputs)]}
        for i in range(n_clients * n_each)
    ]

    async def client() -> None:
        while bodies:
            await asyncio.to_thread(_post, target.port, "/v1/embeddings", bodies.pop())

    n_texts = len(bodies) * n_inputs
    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return {"texts_s": n_texts / (time.perf_counter() - start)}


def _text(seed: str, n_words: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(n_words))


def _post(port: int, path: str, body: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: HTTP {reply.status}: {content[:400]!r}")
    finally:
        connection.close()


async def _complete(target: Target, subject: Subject, salt: str, n_prompt: int, n_tokens: int) -> RequestOutcome:
    """A completion of a random prompt of `n_prompt` tokens."""
    draw = random.Random(salt)
    body = {
        "model": "m",
        "prompt": [draw.randrange(FIRST_TOKEN, subject.n_vocab) for _ in range(n_prompt)],
        "max_tokens": n_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return await stream(target, "/v1/completions", body)


def _checked(outcomes: list[RequestOutcome]) -> list[RequestOutcome]:
    """A figure of requests that failed would be none."""
    if error := next((one.error for one in outcomes if one.error), ""):
        raise RuntimeError(f"a request failed: {error}")
    return outcomes


def _decoding(n_clients: int, *, n_each: int = 1, n_slots: int = 8, n_cells: int = 1024) -> Load:
    title = f"{n_clients} at once, tok/s" if n_clients > 1 else "alone, tok/s"
    columns = {"tok_s": Column(title, 1, of_reading(n_clients), "steps_s")}
    if n_clients == 8:
        columns["ttft_p95_ms"] = Column("their first token, p95, ms", 0)

    async def ask(target: Target, subject: Subject, salt: str) -> Figures:
        return await decode(target, subject, salt, n_clients=n_clients, n_each=n_each)

    return Load(ask, columns, n_slots, n_cells)


def _embedding(title: str, n_words: int, n_inputs: int) -> Load:
    async def ask(target: Target, subject: Subject, salt: str) -> Figures:
        return await embed(target, subject, salt, n_words=n_words, n_inputs=n_inputs)

    return Load(ask, {"texts_s": Column(title)}, for_encoders=True)


LOADS: dict[str, Load] = {
    "decode1": _decoding(1, n_each=2),
    "decode8": _decoding(8, n_each=2),
    "decode16": _decoding(16, n_slots=32, n_cells=256),
    "decode32": _decoding(32, n_slots=32, n_cells=256),
    "pp512": Load(prompt, {"tok_s": Column("prompt of 512, tok/s", 0, of_multiplying)}),
    "behind2048": Load(
        behind, {"tok_s": Column("alone behind 2,048, tok/s", 1, of_reading(1))}, 1, N_BEFORE + 2 * N_TOKENS
    ),
    "embed_short": _embedding("texts of 8 words, texts/s", 8, 8),
    "embed_long": _embedding("texts of 300 words, texts/s", 300, 4),
}
