"""Fifty conversations on two slots: each is answered from its own words only, and as it would be alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e.near_tie import Oracle, assert_same_or_near_tie
from e2e.server_process import ServerProcess
from e2e.survival import unharmed

N_CONVERSATIONS = 50
N_TURNS = 2
N_ALONE = 16
"""Conversations whose last answer is asked for again with nobody else there."""
N_CTX = 1024
SYLLABLES = ["zor", "vex", "qua", "blim", "throp", "nux", "gra", "pli", "sko", "wem"]


@dataclass
class Conversation:
    """A text that grows by what the model says and by what is said next. Its word is in no other one."""

    word: str
    text: str
    n_predict: int
    asked: list[str] = field(default_factory=list)  # the prompt of each turn
    answers: list[Any] = field(default_factory=list)

    def body(self, prompt: str) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "n_predict": self.n_predict,
            "temperature": 0,
            "ignore_eos": True,
            "return_tokens": True,
        }

    def take_turn(self, server: ServerProcess) -> None:
        self.asked.append(self.text)
        answer = server.ok("/completion", self.body(self.text))
        self.answers.append(answer)
        self.text += f"{answer['content']}\nThe word is {self.word}. Again, the word is"


def conversations(rng: random.Random) -> list[Conversation]:
    """Some share a beginning, so that slots are copied from one another; some are long, so that slots are evicted."""
    words = ["".join(pair) for pair in rng.sample([(a, b) for a in SYLLABLES for b in SYLLABLES], N_CONVERSATIONS)]
    head = "This is a note that nobody else may read. "
    made = []
    for word in words:
        opening = head if rng.random() < 0.5 else f"Note of {word}. "
        padding = "Keep it well. " * rng.randrange(3)
        text = f"{opening}{padding}The word is {word}. Again, the word is"
        made.append(Conversation(word, text, rng.randrange(3, 5)))
    return made


@pytest.fixture(scope="module")
def shared(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", str(N_CTX), "-np", "2", "-t", "1")


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


def test_fifty_conversations_on_two_slots(server: ServerProcess, model: Path) -> None:
    rng = random.Random(20)
    talks = conversations(rng)
    with ThreadPoolExecutor(5) as pool:
        for _ in range(N_TURNS):
            rng.shuffle(talks)
            list(pool.map(lambda talk: talk.take_turn(server), talks))
    n_own = n_cached = 0
    different = []
    for talk in talks:
        for prompt, answer in zip(talk.asked, talk.answers, strict=True):
            foreign = [other.word for other in talks if other is not talk and other.word in answer["content"]]
            assert not foreign, f"{talk.word} was told {foreign}"
            n_own += talk.word in answer["content"]
            tokens = server.ok("/tokenize", {"content": prompt, "add_special": True})["tokens"]
            timings = answer["timings"]
            assert timings["cache_n"] + timings["prompt_n"] == answer["tokens_evaluated"] == len(tokens)
            assert timings["prompt_n"] >= 1
            n_cached += timings["cache_n"]
    for talk in talks[:N_ALONE]:
        prompt, answer = talk.asked[-1], talk.answers[-1]  # the last turn's prompt holds the others
        alone = server.ok("/completion", {**talk.body(prompt), "cache_prompt": False})
        assert alone["timings"]["cache_n"] == 0
        if alone["tokens"] != answer["tokens"]:
            tokens = server.ok("/tokenize", {"content": prompt, "add_special": True})["tokens"]
            different.append((tokens, answer["tokens"], alone["tokens"]))
    assert n_own > N_CONVERSATIONS, "few answers hold their own word: foreign ones would hardly show"
    assert n_cached > 100, "hardly a prefix was reused: this proves little"
    assert len(different) <= N_ALONE // 4
    if different:
        oracle = Oracle(model, N_CTX)
        try:
            for prompt_tokens, got, expected in different:
                assert_same_or_near_tie(oracle, prompt_tokens, got, expected)
        finally:
            oracle.close()


def test_cached_tokens_are_those_that_were_there(server: ServerProcess) -> None:
    """What counts as cached is the common beginning with what is resident, the last token of a prompt never."""
    base = "In the archive of the town there is a shelf that holds "
    first = server.ok("/v1/completions", {"prompt": base + "red books", "max_tokens": 1, "temperature": 0})
    cached = first["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached < first["usage"]["prompt_tokens"]
    for tail in ("red books", "blue maps of the sea"):
        tokens = [
            server.ok("/tokenize", {"content": base + one, "add_special": True})["tokens"]
            for one in ("red books", tail)
        ]
        n_common = next((i for i, (a, b) in enumerate(zip(*tokens, strict=False)) if a != b), len(tokens[1]))
        usage = server.ok("/v1/completions", {"prompt": base + tail, "max_tokens": 1, "temperature": 0})["usage"]
        assert usage["prompt_tokens"] == len(tokens[1])
        assert usage["prompt_tokens_details"]["cached_tokens"] == min(n_common, len(tokens[1]) - 1)
