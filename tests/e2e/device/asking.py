"""What is asked of a device's servers, in few tokens: a device that is made in software is slow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.e2e.server_process import ServerProcess

PROMPTS = (
    "Once upon a time",
    "The capital of France is",
    "def add(a, b):\n",
    "Dear Sir, I am writing because",
    "1, 2, 3, 4,",
    "The opposite of hot is",
    "Water is made of",
    "To be or not to be, that is",
    "The sun rises in the",
    "Monday, Tuesday, Wednesday,",
    "She opened the old red door and",
    "import os\nimport sys\n\n",
    # Long enough for the kernels of many rows, and for the batches that a GPU takes of layers that are not on it.
    "The lighthouse keeper wrote in his book every evening: the wind, the ships, the light. " * 3,
    "It was said that it all began so. " * 10 + "But nobody knew",
    "Bread: flour, water, salt, yeast. Soup: water, salt, leeks. " * 5 + "Cake:",
    "A list of colours: red, green, blue, yellow, black, white, brown, pink, grey, violet. My favourite colour is",
)
"""Texts of 4 to 90 tokens."""

FEW = (PROMPTS[1], PROMPTS[9], PROMPTS[13])
"""For what one prompt shows as well as many."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as --list-devices names it. `memory` are bytes in all."""

    name: str
    backend: str
    memory: int


Steps = list[tuple[int, dict[int, float]]]
"""Of an answer: each token, and the log-probabilities of the likeliest ones in its place."""

NEAR = 0.25
"""Between two log-probabilities of a token that are as good as equal: a GPU multiplies in half precision."""


def steps(server: ServerProcess, prompt: str, n: int = 3, **fields: Any) -> Steps:
    """The first steps of an answer."""
    body = {"prompt": prompt, "n_predict": n, "temperature": 0, "ignore_eos": True, "n_probs": 64}
    found = server.ok("/completion", {**body, "cache_prompt": False, **fields})["completion_probabilities"]
    return [(step["id"], {one["id"]: one["logprob"] for one in step["top_logprobs"]}) for step in found]


def all_steps(server: ServerProcess, n_at_once: int, **fields: Any) -> list[Steps]:
    """The first steps behind each of FEW prompts, so many at a time."""
    with ThreadPoolExecutor(n_at_once) as pool:
        return list(pool.map(lambda prompt: steps(server, prompt, **fields), FEW))


def assert_near(got: list[Steps], expected: list[Steps]) -> None:
    """In each step the likeliest tokens are as likely, for as long as both texts are the same."""
    for one, other in zip(got, expected, strict=True):
        for (token, here), (expected_token, there) in zip(one, other, strict=True):
            likeliest = sorted(there, key=lambda token: -there[token])[:8]
            apart = {token: here.get(token, -99.0) - there[token] for token in likeliest}
            assert max(map(abs, apart.values())) <= NEAR, apart
            if token != expected_token:
                break


NEAR_TIE = 0.3
"""Between the log-probabilities of two tokens of which a device may choose the other.

Rows are rounded to 8 bits before they meet quantised weights, by each kernel in its own way. In a build for Vulkan even
-ngl 0, where the CPU computes a short prompt, put them 0.27 apart in the demo model.
"""


def assert_same_or_near_tie(got: Steps, expected: Steps) -> bool:
    """True when the texts are equal; otherwise the two leading tokens are nearly as likely where they first part."""
    for at, ((token, _), (expected_token, likely)) in enumerate(zip(got, expected, strict=True)):
        if token != expected_token:
            first, second = sorted(likely.values(), reverse=True)[:2]
            assert first - second <= NEAR_TIE, f"texts part at token {at}, where {first - second:.3f} lies between two"
            return False
    return True
