"""Who gets which slot, and from which resident cells it starts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.events import Started
from llamabox.engine.request import Request
from llamabox.engine.scheduling.admission import WORTH_WAITING
from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeMemory, FakeRunner

HEAD = tuple(range(1, 41))


def n_computed(driver: Driver) -> int:
    """Rows of all batches so far."""
    return sum(len(batch) for batch in driver.runner.batches)


def wide(**config: object) -> Driver:
    """Steps so wide that every prompt here fits into one."""
    return Driver(FakeRunner(n_batch=512, n_ubatch=512), **config)


def n_cached(driver: Driver, request_id: str, index: int = 0) -> int:
    started = driver.transcripts[request_id, index].started
    assert started is not None
    return started.n_cached


def slot_of(driver: Driver, request_id: str, index: int = 0) -> int:
    started = driver.transcripts[request_id, index].started
    assert started is not None
    return started.id_slot


def served(driver: Driver, asked: Request) -> int:
    """Run `asked` to its end; returns how many of its prompt tokens were cached."""
    driver.submit(asked)
    driver.run()
    return n_cached(driver, asked.request_id)


# The queue


def test_first_come_first_served() -> None:
    driver = Driver(n_slots=1)
    for name, first in (("a", 10), ("b", 20), ("c", 30), ("d", 40)):
        driver.submit(request(name, (first,), n_predict=3))
    order: list[str] = []
    while not driver.engine.is_idle:
        order += [event.request_id for event in driver.step() if isinstance(event, Started)]
        assert len(driver.engine.running) <= 1
    assert order == ["a", "b", "c", "d"]


def test_waiting_for_a_slot_blocks_nobody_else() -> None:
    driver = Driver(n_slots=2)
    driver.submit(request("holder", (1, 1), n_predict=30, id_slot=0))
    driver.step()
    driver.submit(request("insists", (2, 2), n_predict=3, id_slot=0))
    driver.submit(request("any", (3, 3), n_predict=3))
    while not driver.transcripts["any", 0].is_over:
        driver.step()
    assert not driver.transcripts["holder", 0].is_over
    assert driver.transcripts["insists", 0].started is None
    driver.run()
    assert (slot_of(driver, "insists"), slot_of(driver, "any")) == (0, 1)


def test_who_waits_longest_for_a_slot_gets_it_first() -> None:
    driver = Driver(n_slots=2)
    driver.submit(request("a", (1,), n_predict=10, id_slot=0))
    driver.submit(request("b", (2,), n_predict=40, id_slot=1))
    driver.step()
    driver.submit(request("insists", (3,), n_predict=2, id_slot=0))
    for i in range(4):
        driver.submit(request(f"later{i}", (10 + i,), n_predict=5))
    while driver.transcripts["insists", 0].started is None:
        driver.step()
        assert all(driver.transcripts[f"later{i}", 0].started is None for i in range(4))
    driver.run()


def test_two_choices_in_one_named_slot_do_not_block_each_other() -> None:
    driver = Driver(n_slots=2)
    driver.submit(request("r", HEAD, n=2, id_slot=0, n_predict=4))
    driver.run()
    assert sorted((slot_of(driver, "r", 0), slot_of(driver, "r", 1))) == [0, 1]
    assert slot_of(driver, "r", 0) == 0


def test_more_requests_than_slots_all_get_their_turn() -> None:
    driver = Driver(n_slots=2)
    for i in range(9):
        driver.submit(request(f"r{i}", (i + 1, 2, 3), n_predict=6))
    driver.step()
    assert len(driver.engine.running) == 2
    assert driver.engine.n_waiting == 7
    driver.run()


# What is cached


def test_the_same_prompt_again_computes_its_last_token_only() -> None:
    driver = Driver(n_slots=1, n_ctx=128)
    assert served(driver, request("a", HEAD)) == 0
    assert served(driver, request("b", HEAD)) == len(HEAD) - 1
    assert served(driver, request("c", (*HEAD[:26], 99, 98))) == 26
    assert served(driver, request("d", (*HEAD[:7], 97))) == 7
    assert served(driver, request("e", (96, 95))) == 0


def test_a_conversation_that_goes_on_computes_only_what_is_new() -> None:
    driver = Driver(n_slots=2, n_ctx=128)
    served(driver, request("a", HEAD, n_predict=10))
    answer = tuple(driver.transcripts["a", 0].tokens)
    # The last token of the answer was said but never computed.
    assert served(driver, request("b", (*HEAD, *answer, 5, 6, 7))) == len(HEAD) + 9


def test_a_request_that_will_have_no_cache_gets_none() -> None:
    driver = Driver(n_slots=1)
    served(driver, request("a", HEAD))
    before = n_computed(driver)
    assert served(driver, request("b", HEAD, cache_prompt=False, n_predict=1)) == 0
    assert n_computed(driver) - before == len(HEAD)


def test_a_prefix_in_a_busy_slot_is_copied() -> None:
    driver = Driver(n_slots=2, n_ctx=128)
    busy = request("busy", HEAD, n_predict=60)
    driver.submit(busy)
    while not driver.transcripts["busy", 0].tokens:
        driver.step()
    late = request("late", (*HEAD[:30], 77, 78), n_predict=4)
    driver.submit(late)
    driver.step()
    assert n_cached(driver, "late") == 30
    assert not driver.transcripts["busy", 0].is_over
    driver.run()
    for asked in (busy, late):
        assert driver.transcripts[asked.request_id, 0].tokens == alone(asked, n_ctx=128)[0].tokens


def test_a_short_common_prefix_does_not_cost_another_conversation_its_cells() -> None:
    driver = Driver(n_slots=2, n_ctx=128)
    served(driver, request("long", HEAD))
    assert served(driver, request("other", (*HEAD[:5], 99, 98))) == 5
    assert slot_of(driver, "other") != slot_of(driver, "long")
    assert served(driver, request("long again", HEAD)) == len(HEAD) - 1


def test_a_slot_of_which_most_is_of_use_is_taken_not_copied() -> None:
    driver = Driver(n_slots=2, n_ctx=128)
    served(driver, request("a", HEAD, n_predict=1))
    assert served(driver, request("b", (*HEAD[:35], 99), n_predict=1)) == 35
    assert slot_of(driver, "b") == slot_of(driver, "a")


def test_without_a_match_the_slot_used_longest_ago_is_given_up() -> None:
    driver = Driver(n_slots=2)
    served(driver, request("a", (1, 1, 1)))
    served(driver, request("b", (2, 2, 2)))
    served(driver, request("a again", (1, 1, 1)))
    served(driver, request("c", (3, 3, 3)))
    assert slot_of(driver, "c") == slot_of(driver, "b")
    assert served(driver, request("a once more", (1, 1, 1))) == 2


def test_a_named_slot_gets_a_copy_of_what_is_cached_elsewhere() -> None:
    driver = Driver(n_slots=3)
    served(driver, request("a", HEAD, id_slot=2))
    assert served(driver, request("b", HEAD, id_slot=0)) == len(HEAD) - 1
    assert (slot_of(driver, "a"), slot_of(driver, "b")) == (2, 0)


def test_a_memory_that_refuses_parts_reports_what_it_really_kept() -> None:
    driver = Driver(FakeRunner(memory=FakeMemory(partial_removal=False, can_shift=False)), n_slots=1, n_ctx=128)
    served(driver, request("a", HEAD, n_predict=4))
    assert served(driver, request("b", HEAD)) == 0
    answer = tuple(driver.transcripts["b", 0].tokens)
    assert served(driver, request("c", (*HEAD, *answer, 5))) == len(HEAD) + len(answer) - 1


# Prefixes that are still being computed


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("n_ubatch", [7, 32, 512])
def test_n_choices_compute_their_prompt_once(n: int, n_ubatch: int) -> None:
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=n_ubatch), n_slots=4)
    driver.submit(request("r", HEAD, n=n, n_predict=1))
    driver.run()
    # Each further choice computes the prompt's last token again, for logits of its own.
    assert n_computed(driver) == len(HEAD) + (n - 1)
    assert [n_cached(driver, "r", i) for i in range(n)].count(0) == 1


def test_requests_that_come_together_compute_their_common_prefix_once() -> None:
    driver = wide(n_slots=4)
    tails = [(50 + i, 60 + i, 70 + i, 80 + i, 90 + i) for i in range(4)]
    for i, tail in enumerate(tails):
        driver.submit(request(f"r{i}", HEAD + tail, n_predict=1))
    driver.run()
    assert n_computed(driver) == len(HEAD) + sum(map(len, tails))
    assert [n_cached(driver, f"r{i}") for i in range(4)] == [0, 40, 40, 40]


@settings(max_examples=40, deadline=None)
@given(
    n_head=st.integers(0, 150),
    n_requests=st.integers(2, 4),
    n_ubatch=st.sampled_from([5, 32, 512]),
    cont_batching=st.booleans(),
)
def test_what_is_computed_twice_is_less_than_what_is_worth_waiting_for(
    n_head: int, n_requests: int, n_ubatch: int, cont_batching: bool
) -> None:
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=n_ubatch), n_slots=4, n_ctx=256, cont_batching=cont_batching)
    for i in range(n_requests):
        driver.submit(request(f"r{i}", (*[7] * n_head, 50 + i, 60), n_predict=1))
    driver.run()
    needed = n_head + 2 * n_requests
    assert needed <= n_computed(driver) <= needed + (n_requests - 1) * (WORTH_WAITING - 1)


def test_a_common_prefix_not_worth_waiting_for_delays_nobody() -> None:
    driver = wide(n_slots=2)
    for i in range(2):
        driver.submit(request(f"r{i}", (*HEAD[: WORTH_WAITING - 1], 90 + i), n_predict=1))
    driver.step()
    assert driver.engine.is_idle


def test_who_waits_for_a_prefix_keeps_nobody_from_a_free_slot() -> None:
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=8), n_slots=3, n_ctx=256)
    driver.submit(request("first", (7,) * 120, n_predict=1))
    driver.step()
    driver.submit(request("same", (*(7,) * 120, 8), n_predict=1))
    driver.submit(request("other", (5, 5), n_predict=1))
    driver.step()
    assert driver.transcripts["other", 0].is_over
    assert driver.transcripts["same", 0].started is None
    driver.run()
    # The waiting sequence stops waiting as soon as too little is left to gain.
    assert n_cached(driver, "same") >= 120 - WORTH_WAITING


def test_who_waited_for_a_prefix_that_never_came_computes_it_itself() -> None:
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=8), n_slots=2, n_ctx=256)
    driver.submit(request("first", (7,) * 120, n_predict=1))
    driver.step()  # tells that it begins
    driver.step()
    late = request("late", (*(7,) * 120, 8), n_predict=2)
    driver.submit(late)
    driver.step()
    driver.abort("first")
    driver.run()
    assert n_cached(driver, "late") == 16
    assert driver.transcripts["late", 0].tokens == alone(late, n_ctx=256)[0].tokens


# How similar a slot must be to be taken over


@pytest.mark.parametrize(
    ("similarity", "takes_over"), [(0.0, False), (0.3, True), (0.5, True), (0.6, False), (1.0, False)]
)
def test_a_slot_is_taken_over_where_enough_of_it_is_of_use(similarity: float, takes_over: bool) -> None:
    driver = wide(n_slots=2, slot_similarity=similarity)
    assert served(driver, request("oldest", (9,) * 20, n_predict=1, id_slot=0)) == 0
    assert served(driver, request("half", HEAD, n_predict=1, id_slot=1)) == 0
    asked = request("asked", (*HEAD[:20], 7, 7, 7), n_predict=4)
    assert served(driver, asked) == 20
    assert (slot_of(driver, "asked") == 1) == takes_over
    assert driver.transcripts["asked", 0].tokens == alone(asked)[0].tokens


def test_with_0_a_slot_that_is_all_of_use_gets_no_preference() -> None:
    for similarity, expected in ((0.0, 0), (0.5, 1), (1.0, 1)):
        driver = wide(n_slots=2, slot_similarity=similarity)
        served(driver, request("oldest", (9,) * 20, n_predict=1, id_slot=0))
        served(driver, request("first", HEAD, n_predict=1, id_slot=1))
        served(driver, request("longer", (*HEAD, 7), n_predict=1))
        assert slot_of(driver, "longer") == expected
