"""Drafts save steps and change nothing else: neither a token, nor where a text ends, nor what stays in its slot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox import errors
from llamabox.engine.request import Request, prompt_tokens
from tests.engine.driver import Driver, Transcript, alone, request
from tests.fakes import FakeDrafter, FakeGrammar, FakeMemory, FakeRunner

N_CTX = 64


def drafted(
    *asked: Request, n_right: int, length: int = 4, runner: FakeRunner | None = None, **config: object
) -> tuple[Driver, FakeDrafter]:
    """The requests in one engine with a drafter that knows what they say alone."""
    texts: dict[tuple[str, int], list[int]] = {}
    for one in asked:
        texts |= {(one.request_id, index): found.tokens for index, found in alone(one, **config).items()}
    drafter = FakeDrafter(texts, n_right=n_right, length=length)
    driver = Driver(runner, [drafter], **config)
    for one in asked:
        driver.submit(one)
    return driver, drafter


def told(transcript: Transcript) -> tuple[object, ...]:
    """All that a sequence reported but times."""
    assert transcript.finished is not None
    ended = transcript.finished
    why = (ended.reason, ended.stop_type, ended.stopping_word, ended.truncated, ended.n_resident)
    return transcript.tokens, transcript.text, transcript.probs, why, ended.timings.predicted_n


@pytest.mark.parametrize("length", [1, 3, 7])
def test_drafts_that_all_come_save_all_steps_but_one_in_so_many(length: int) -> None:
    driver, drafter = drafted(request(n_predict=33), n_right=length, length=length)
    driver.run()
    assert len(driver.runner.batches) == 1 + -(-32 // (length + 1))
    assert drafter.n_accepted == drafter.n_drafted


def test_drafts_that_never_come_cost_no_step_and_leave_no_cell() -> None:
    asked = request(n_predict=12)
    driver, drafter = drafted(asked, n_right=0)
    while not driver.engine.is_idle:
        driver.step()
        driver.check()
    assert (len(driver.runner.batches), drafter.n_accepted) == (12, 0)
    assert drafter.n_drafted > 0
    assert told(driver.transcripts["r", 0]) == told(alone(asked)[0])


@settings(max_examples=150, deadline=None)
@given(
    n_predict=st.integers(1, 90),
    n_right=st.sampled_from([7, 0, -1]),
    length=st.integers(1, 7),
    n_probs=st.sampled_from([0, 2]),
    stop_at=st.integers(0, 30),
    shift=st.booleans(),
    ignore_eos=st.booleans(),
    limit=st.sampled_from([0, 20, 60]),
    seed=st.integers(0, 20),
)
def test_a_text_ends_where_it_would_have_ended(
    n_predict: int,
    n_right: int,
    length: int,
    n_probs: int,
    stop_at: int,
    shift: bool,
    ignore_eos: bool,
    limit: int,
    seed: int,
) -> None:
    """By its length, the end token, a stop string, the end of the context: wherever in a draft that is."""
    params = {"n_predict": n_predict, "n_probs": n_probs, "tokens_per_second": limit}
    sampling = {"seed": seed, "temperature": 1.0, "ignore_eos": ignore_eos}
    config = {"n_ctx": 32, "context_shift": shift}
    text = alone(request(sampling=sampling, **params), **config)[0].text
    asked = request(sampling=sampling, stop=(text[stop_at : stop_at + 2] or "none",), **params)
    driver, _ = drafted(asked, n_right=n_right, length=length, **config)
    driver.run()
    assert told(driver.transcripts["r", 0]) == told(alone(asked, **config)[0])


def test_where_lone_rows_and_runs_have_other_bits_nothing_is_drafted() -> None:
    runner = FakeRunner(mixes=False)
    driver, drafter = drafted(request(n_predict=9), n_right=4, runner=runner)
    driver.run()
    assert (len(runner.batches), drafter.n_drafted) == (9, 0)


def test_where_they_come_out_alike_drafts_ride_beside_lone_rows() -> None:
    runner = FakeRunner(mixes=False, is_steady=True)
    one, other = request("one", n_predict=9), request("other", (7, 8, 9), n_predict=9, n_probs=1)
    driver, _ = drafted(one, n_right=3, length=3, runner=runner)
    driver.submit(other)
    driver.run()
    lengths = [sorted(map(len, batch.runs)) for batch in runner.batches]
    assert [1, 4] in lengths
    assert told(driver.transcripts["other", 0]) == told(alone(other)[0])


def test_memory_that_takes_no_tail_back_gets_no_drafts() -> None:
    runner = FakeRunner(memory=FakeMemory(partial_removal=False, can_shift=False))
    driver, drafter = drafted(request(n_predict=9), n_right=4, runner=runner)
    driver.run()
    assert drafter.n_drafted == 0


def test_a_sequence_whose_tail_was_refused_once_is_computed_again_and_drafts_no_more() -> None:
    """A sliding window forgets, for rows behind the first ubatch that do not come, what the next token attends to."""
    config = {"n_window": 6, "can_shift": False}
    runner = FakeRunner(memory=FakeMemory(**config), n_ubatch=2)  # type: ignore[arg-type]
    asked = request(n_predict=30)
    solo = alone(asked, memory=FakeMemory(**config))  # type: ignore[arg-type]
    drafter = FakeDrafter({("r", 0): solo[0].tokens}, n_right=1)
    driver = Driver(runner, [drafter])
    driver.submit(asked)
    driver.run()
    assert driver.transcripts["r", 0].tokens == solo[0].tokens
    assert 0 < drafter.n_drafted <= 12


@pytest.mark.parametrize("n_right", [0, 1, 4])
@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(
    "memory", [{"n_window": 6}, {"partial_removal": False, "n_rollback": 3}], ids=["window", "recurrent"]
)
def test_memory_that_takes_the_last_rows_back_is_drafted_for(
    memory: dict[str, Any], unified: bool, n_right: int
) -> None:
    """No draft is longer than it takes back; no state is that of tokens that did not come, nor that of a copy."""
    config = {"can_shift": False, "unified": unified, **memory}
    asked = [request(f"r{i}", (i + 1, *range(20, 60)), n_predict=30) for i in range(2)]
    texts = {(one.request_id, 0): alone(one, memory=FakeMemory(**config), n_ctx=128)[0].tokens for one in asked}
    drafter = FakeDrafter(texts, n_right=n_right)
    runner = FakeRunner(memory=FakeMemory(**config))
    driver = Driver(runner, [drafter], n_ctx=128, host_budget=1_000_000)
    for one in asked:
        driver.submit(one)
    driver.run()
    for one in asked:  # each goes on, in its slot and in a copy
        said = texts[one.request_id, 0]
        for n in (2, 1):
            cells = (*prompt_tokens(one.prompt), *said, *range(70, 70 + n))
            longer = request(f"{one.request_id}-{n}", cells, n=n, n_predict=4)
            driver.submit(longer)
            driver.run()
            expected = alone(longer, memory=FakeMemory(**config), n_ctx=128)
            for i in range(n):
                assert driver.transcripts[longer.request_id, i].tokens == expected[i].tokens
    for key, text in texts.items():
        assert driver.transcripts[key].tokens == text
    assert drafter.n_drafted > 40
    longest = max(run.n_outputs for batch in runner.batches for run in batch.runs)
    assert longest == (4 if "n_rollback" in memory else 5)


def test_of_many_sequences_no_state_is_taken_back() -> None:
    """libllama moves states as it computes several side by side, and not those that it keeps of before."""
    config = {"can_shift": False, "partial_removal": False, "n_rollback": 3}
    asked = [request(f"r{i}", (i + 1, *range(20, 60)), n_predict=30 * (i + 1)) for i in range(3)]
    texts = {(one.request_id, 0): alone(one, memory=FakeMemory(**config), n_ctx=256)[0].tokens for one in asked}  # type: ignore[arg-type]
    drafter = FakeDrafter(texts, n_right=1)
    runner = FakeRunner(memory=FakeMemory(**config))  # type: ignore[arg-type]
    driver = Driver(runner, [drafter], n_ctx=256)
    for one in asked:
        driver.submit(one)
    driver.run()
    assert {key: driver.transcripts[key].tokens for key in texts} == texts
    drafted_beside = [len(batch.runs) for batch in runner.batches if any(run.n_outputs > 1 for run in batch.runs)]
    assert set(drafted_beside) == {1, 2}


def test_without_room_drafts_go_before_anybody_fails() -> None:
    """The pool holds what the texts need, and not a cell more."""
    asked = [request(f"r{i}", (i + 1, 2, 3), n_predict=10) for i in range(3)]
    runner = FakeRunner(memory=FakeMemory(n_cells=3 * 12))
    driver, drafter = drafted(*asked, n_right=0, length=6, runner=runner)
    driver.run()
    assert drafter.n_drafted > 0
    for one in asked:
        assert driver.transcripts[one.request_id, 0].tokens == alone(one)[0].tokens


def test_a_prompt_has_its_place_before_drafts() -> None:
    driver, _ = drafted(request(n_predict=50), n_right=0, length=7, runner=FakeRunner(n_batch=9, n_ubatch=9))
    driver.step()
    driver.step()
    late = request("late", tuple(range(40, 80)), n_predict=1)
    driver.submit(late)
    driver.step()  # tells that it begins
    driver.step()
    by_slot = {run.seq_id: len(run) for run in driver.runner.batches[-1].runs}
    assert by_slot == {0: 1, 1: 8}


def test_what_the_samplers_leave_is_told_as_without_drafts() -> None:
    asked = request(n_predict=20, n_probs=2, post_sampling_probs=True)
    driver, drafter = drafted(asked, n_right=4)
    driver.run()
    assert told(driver.transcripts["r", 0]) == told(alone(asked)[0])
    assert drafter.n_drafted == 0


def test_a_grammar_is_followed_token_by_token() -> None:
    asked = request(n_predict=30, grammar=FakeGrammar(n_tokens=30, period=3))
    driver, _ = drafted(asked, n_right=4)
    driver.run()
    assert told(driver.transcripts["r", 0]) == told(alone(asked)[0])


@pytest.mark.parametrize("length", [3, 5, 7])
def test_what_a_grammar_forces_behind_a_draft_is_computed_once(length: int) -> None:
    """A draft ends where there is a choice, and what is forced there is part of it."""
    grammar = FakeGrammar(n_tokens=40, period=4, n_choices=150)
    asked = request(n_predict=-1, grammar=grammar, sampling={"temperature": 0.0})
    driver, _ = drafted(asked, n_right=length, length=length)
    driver.run()
    assert told(driver.transcripts["r", 0]) == told(alone(asked)[0])
    assert (
        sum(len(run) for batch in driver.runner.batches for run in batch.runs)
        <= len(driver.transcripts["r", 0].tokens) + 3
    )


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_under_a_grammar_only_a_lone_sequence_has_drafts(temperature: float, n: int) -> None:
    grammar = FakeGrammar(n_tokens=30, period=1)
    asked = [request(f"r{i}", n_predict=30, grammar=grammar, sampling={"temperature": temperature}) for i in range(n)]
    driver, drafter = drafted(*asked, n_right=4)
    driver.run()
    for one in asked:
        assert told(driver.transcripts[one.request_id, 0]) == told(alone(one)[0])
    assert (drafter.n_drafted > 0) == (n == 1)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_after_an_abort_nothing_of_a_draft_is_left(n_steps: int) -> None:
    driver, _ = drafted(request(n_predict=30), n_right=1)
    for _ in range(n_steps):
        driver.step()
    driver.abort("r")
    driver.check()
    again = request("again", n_predict=20)
    driver.submit(again)
    driver.run()
    assert driver.transcripts["again", 0].tokens == alone(again)[0].tokens


@pytest.mark.parametrize("kind", [errors.DecodeFatal, errors.DecodeAborted])
def test_a_decode_that_fails_takes_its_drafts_along(kind: type[errors.DecodeError]) -> None:
    driver, _ = drafted(request(n_predict=30), n_right=1)
    driver.step()
    driver.runner.failures = [kind("broken")]
    driver.run()
    assert driver.transcripts["r", 0].failed is not None
    driver.check()
