"""More conversations than slots: each is answered from its own words only, and as it would be alone.

What a slot gives up waits in host memory while slots are copied from one another, all in the same steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.near_tie import Oracle, assert_same_or_near_tie
from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT
from tests.e2e.survival import unharmed

N_CONVERSATIONS = 30
N_TURNS = 2
N_ALONE = 12
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
    return serve("-c", str(N_CTX), "-np", "2")


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


def test_thirty_conversations_on_two_slots(server: ServerProcess, model: Path) -> None:
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


CLUBS = (
    "These are the notes of a club of sailors. Each wrote a word that nobody else may read, and wrote it many times. ",
    "What follows was found in an attic in winter, behind an old chair, and is about secret words that people keep. ",
)
N_MEMBERS = 4
N_ROUNDS = 6


def asks(club: str, word: str, n_times: int) -> dict[str, Any]:
    prompt = club + f"The word is {word}. " * n_times + "Again, the word is"
    return {"prompt": prompt, "n_predict": 6, "temperature": 0, "ignore_eos": True, "return_tokens": True}


def test_a_text_from_host_memory_does_not_get_into_one_that_starts_from_a_part_of_a_slot(
    serve: Callable[..., ServerProcess], model: Path
) -> None:
    # Was: a slot that a copy had yet to read was filled from host memory in the same step.
    server = serve("-c", str(3 * 512), "-np", "3", "--cache-ram", "256")
    rng = random.Random(7)
    words = ["".join(pair) for pair in rng.sample([(a, b) for a in SYLLABLES for b in SYLLABLES], 60)]
    long = [[asks(club, words.pop(), 20) for _ in range(N_MEMBERS)] for club in CLUBS]
    pairs: list[tuple[dict[str, Any], Any]] = []
    n_from_host = 0
    with ThreadPoolExecutor(2) as pool:
        for i in range(N_ROUNDS):
            here, there = i % 2, 1 - i % 2
            for body in rng.sample(long[here], 2 + rng.randrange(2)):  # the others' texts go to host memory
                pairs.append((body, server.ok("/completion", body)))
            beside = server.stream("/completion", {**asks("", "none", 1), "n_predict": 60})
            next(beside)  # a step runs, during which both of these arrive
            both = [asks(CLUBS[here], words.pop(), 1), rng.choice(long[there])]
            answers = list(pool.map(lambda body: server.ok("/completion", body), both))
            pairs += zip(both, answers, strict=True)
            n_from_host += answers[1]["timings"]["cache_n"] > 150
            list(beside)
    oracle = Oracle(model, N_CTX)
    alone: dict[str, list[int]] = {}  # by prompt: most were asked several times
    different = 0
    try:
        for body, answer in pairs:
            prompt = body["prompt"]
            if prompt not in alone:
                alone[prompt] = server.ok("/completion", {**body, "cache_prompt": False})["tokens"]
            if answer["tokens"] != alone[prompt]:
                different += 1
                tokens = server.ok("/tokenize", {"content": prompt, "add_special": True})["tokens"]
                assert_same_or_near_tie(oracle, tokens, answer["tokens"], alone[prompt])
    finally:
        oracle.close()
    assert n_from_host >= N_ROUNDS // 2, "hardly a text came back from host memory: this proves little"
    assert different <= len(pairs) // 8


def test_cached_tokens_are_those_that_were_there(server: ServerProcess) -> None:
    """What counts as cached is the common beginning with what is resident, but for the end of a prompt."""
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
        n_cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert n_cached in {min(n_common, len(tokens[1]) - n_last) for n_last in LAST_OF_PROMPT}
