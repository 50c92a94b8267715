"""Where a memory cannot be cut, a prompt that leaves a text goes on from a checkpoint, and is answered as if alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.kv.checkpoints import LEAST_GAP, CheckpointLimits, likely_ends, places
from llamabox.engine.kv.history import History
from llamabox.engine.request import Media, Request
from llamabox.engine.scheduling.admission import WORTH_WAITING
from tests.engine.driver import Driver, alone, request, segments_of
from tests.fakes import FakeMemory, FakeRunner

N_CTX = 512
MARK = 9
SYSTEM = (MARK, *range(1000, 1100))
PICTURE = Media(b"picture", 20, 4, is_causal=False)

MEMORIES: list[dict[str, Any]] = [
    {"partial_removal": False, "can_shift": False},
    {"partial_removal": False, "can_shift": False, "unified": False},
    {"partial_removal": False, "can_shift": False, "part_is_all": True},
    {"n_window": 8, "can_shift": False},
    {"n_window": 8, "can_shift": False, "unified": False},
]
every_memory = pytest.mark.parametrize("memory", MEMORIES, ids=lambda one: "-".join(one))


class Chat:
    """A server over a memory, and chats with it: each answer must be the one that its prompt gets alone."""

    def __init__(self, memory: dict[str, Any], n_slots: int = 1, host_budget: int = 10_000_000, **config: Any) -> None:
        self._memory = memory
        self._n_slots = n_slots
        pool = FakeMemory(n_cells=n_slots * N_CTX, **memory)
        runner = FakeRunner(memory=pool, marks=frozenset({MARK}))
        self.driver = Driver(runner, n_slots=n_slots, n_ctx=N_CTX, host_budget=host_budget, **config)
        self._n_asked = 0

    def start(self, *parts: int | Media, **params: Any) -> Request:
        self._n_asked += 1
        asked = request(f"r{self._n_asked}", prompt=parts, **{"n_predict": 10, **params})
        self.driver.submit(asked)
        return asked

    def check(self, asked: Request) -> int:
        """How much of its prompt was cached."""
        got = self.driver.transcripts[asked.request_id, 0]
        fresh = FakeMemory(n_cells=self._n_slots * N_CTX, **self._memory)
        assert got.tokens == alone(asked, memory=fresh, n_slots=self._n_slots, n_ctx=N_CTX)[0].tokens
        assert got.started is not None
        return got.started.n_cached

    def say(self, *parts: int | Media, **params: Any) -> int:
        asked = self.start(*parts, **params)
        self.driver.run()
        return self.check(asked)


def message(start: int, n_tokens: int = 40) -> tuple[int, ...]:
    return (MARK, *range(start, start + n_tokens))


@every_memory
def test_an_edited_last_message_and_a_regenerated_answer_start_where_they_differ(memory: dict[str, Any]) -> None:
    chat = Chat(memory)
    assert chat.say(*SYSTEM, *message(2000)) == 0
    assert chat.say(*SYSTEM, *message(3000)) == len(SYSTEM)
    assert chat.say(*SYSTEM, *message(3000)) == len(SYSTEM) + 40
    assert chat.say(*SYSTEM, *message(2000)) == len(SYSTEM) + (40 if memory.get("part_is_all") else 0)


@every_memory
def test_a_shortened_chat_starts_from_an_earlier_turn(memory: dict[str, Any]) -> None:
    chat = Chat(memory)
    turns = [message(start) for start in (2000, 3000, 4000, 5000)]
    said: tuple[int, ...] = SYSTEM
    for turn in turns:
        said += turn
        chat.say(*said, n_predict=1)
    assert chat.say(*SYSTEM, *turns[0], *turns[1], *message(6000)) >= len(SYSTEM) + len(turns[0])
    assert chat.say(*SYSTEM, *message(7000)) >= len(SYSTEM) - 1


@every_memory
def test_where_two_texts_part_others_start(memory: dict[str, Any]) -> None:
    """Without any marks: the second one leaves the first where nobody expected it, the third one starts there."""
    chat = Chat(memory)
    head = range(1000, 1150)
    chat.say(*head, *range(2000, 2200))
    chat.say(*head, *range(3000, 3200))
    assert chat.say(*head, *range(4000, 4200)) == len(head)


@every_memory
def test_a_slot_beside_a_busy_one_gets_its_beginning(memory: dict[str, Any]) -> None:
    chat = Chat(memory, n_slots=3)
    first = chat.start(*SYSTEM, *message(2000), n_predict=200)
    while not chat.driver.transcripts[first.request_id, 0].tokens:
        chat.driver.step()
    second = chat.start(*SYSTEM, *message(3000))
    chat.driver.run()
    chat.check(first)
    assert chat.check(second) == len(SYSTEM)


@every_memory
def test_requests_that_come_together_compute_their_beginning_once(memory: dict[str, Any]) -> None:
    chat = Chat(memory, n_slots=4)
    asked = [chat.start(*range(1000, 1160), *range(start, start + 60)) for start in (2000, 3000, 4000)]
    siblings = chat.start(*range(5000, 5100), n=2)
    chat.driver.run()
    cached = sorted(map(chat.check, asked))
    assert (cached[0], cached[1] > 160 - WORTH_WAITING, cached[2] <= 160) == (0, True, True)
    counts = [chat.driver.transcripts[siblings.request_id, i].started for i in range(2)]
    assert sorted(one.n_cached for one in counts if one) == [0, 99]


@every_memory
def test_what_was_given_up_to_host_memory_is_cut_there(memory: dict[str, Any]) -> None:
    chat = Chat(memory)
    chat.say(*SYSTEM, *message(2000))
    chat.say(*range(7000, 7200))  # another conversation has the slot now
    assert chat.say(*SYSTEM, *message(3000)) == len(SYSTEM)


@every_memory
def test_a_checkpoint_may_be_behind_a_picture(memory: dict[str, Any]) -> None:
    chat = Chat(memory)
    chat.say(*SYSTEM, PICTURE, *message(2000))
    assert chat.say(*SYSTEM, PICTURE, *message(3000)) == len(SYSTEM) + PICTURE.n_cells


@every_memory
@pytest.mark.parametrize("n_words", [8, 40])
def test_another_question_about_a_picture_starts_behind_it(memory: dict[str, Any], n_words: int) -> None:
    """It stands in the message of the picture, so that no message begins between them."""
    chat = Chat(memory)
    chat.say(*SYSTEM, MARK, PICTURE, PICTURE, *range(2000, 2000 + n_words))
    n_before = len(SYSTEM) + 1 + 2 * PICTURE.n_cells
    for first in (3000, 4000):
        assert chat.say(*SYSTEM, MARK, PICTURE, PICTURE, *range(first, first + n_words)) == n_before


@every_memory
def test_without_host_memory_there_are_none(memory: dict[str, Any]) -> None:
    chat = Chat(memory, host_budget=0)
    chat.say(*SYSTEM, *message(2000))
    assert chat.say(*SYSTEM, *message(3000)) == 0


@every_memory
def test_a_copy_that_streams_would_feel_is_not_made(memory: dict[str, Any]) -> None:
    chat = Chat(memory, n_slots=2)
    stream = chat.start(*range(8000, 8010), n_predict=400)
    while not chat.driver.transcripts[stream.request_id, 0].tokens:
        chat.driver.step()
    slow = chat.driver.engine.cache.copy_time
    slow.run(1, lambda: setattr(chat.driver.clock, "now", chat.driver.clock.now + 100.0))  # a second or so a byte
    chat.start(*SYSTEM, *message(2000), n_predict=1)
    chat.driver.run()
    later = chat.say(*SYSTEM, *message(3000))
    assert later == 0


@every_memory
def test_of_too_many_those_stay_that_are_missed_most(memory: dict[str, Any]) -> None:
    """Of a chat of ten turns the last ones, and before them some all over it: half a chat is never computed anew."""
    chat = Chat(memory, checkpoints=CheckpointLimits(n_most=8))
    said: tuple[int, ...] = SYSTEM
    for turn in range(10):
        said += message(2000 + 100 * turn, 30)
        chat.say(*said, n_predict=1)
    assert chat.say(*said[:-20], *range(6000, 6010)) >= len(said) - 40
    assert chat.say(*said[: len(said) // 2], *range(7000, 7010)) >= len(said) // 4


@every_memory
def test_with_a_limit_of_none_there_are_none(memory: dict[str, Any]) -> None:
    chat = Chat(memory, checkpoints=CheckpointLimits(n_most=0))
    chat.say(*SYSTEM, *message(2000))
    assert chat.say(*SYSTEM, *message(3000)) == 0


parts = st.lists(st.integers(1, 60) | st.just(PICTURE), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(parts=parts, start=st.integers(0, 50), n_common=st.integers(0, 200), n_least=st.sampled_from([1, 2]))
def test_no_checkpoint_leaves_a_short_run(parts: list[int | Media], start: int, n_common: int, n_least: int) -> None:
    """A row that would be alone has other low bits than in the run that it is cut from."""
    prompt = History.of(
        segments_of(each for part in parts for each in ([part] if isinstance(part, Media) else [MARK] * part))
    )
    start = prompt.start_for(min(start, len(prompt)), n_least)
    limit = prompt.start_for(len(prompt) - 1, n_least)
    found = places(prompt, likely_ends(prompt, limit, n_common, frozenset({MARK}), 64), start, limit, n_least)
    ends = sorted({start, *found, len(prompt), *(edge for span in prompt.spans for edge in (span.start, span.stop))})
    for before, after in pairwise(ends):
        is_whole_text = before in {0, *(span.stop for span in prompt.spans)} and after not in found
        assert before < start or after - before >= n_least or is_whole_text
    assert all(start + LEAST_GAP <= at <= limit and prompt.whole(at) == at for at in found)
