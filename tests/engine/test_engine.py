"""The engine as its caller sees it: where generation ends, what is reported, and whom a failure concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox import errors
from llamabox.engine.batch import MediaRows
from llamabox.engine.events import Delta, Failed, Finished, FinishReason, PrefillStart, Progress, Started, StopType
from llamabox.engine.request import RANDOM_SEED, Media, Request
from llamabox.engine.scheduling import admission
from llamabox.engine.seams import Ask
from tests.engine.driver import Driver, Transcript, alone, request
from tests.fakes import EOG, FakeGrammar, FakeMemory, FakeRunner, ours

N_CTX = 64
ASCII = 100
"""A vocabulary of which each token is one character."""


def answer(asked: Request, *, runner: FakeRunner | None = None, **config: object) -> Transcript:
    driver = Driver(runner, **config)
    driver.submit(asked)
    driver.run()
    return driver.transcripts[asked.request_id, 0]


def ended(transcript: Transcript) -> Finished:
    assert transcript.finished is not None
    return transcript.finished


def prompt(n_tokens: int) -> tuple[int, ...]:
    return tuple(i % 97 + 1 for i in range(n_tokens))


# Log-probabilities


@pytest.mark.parametrize("n_probs", [0, 1, 10])
def test_each_token_has_its_probabilities_where_they_were_asked_for(n_probs: int) -> None:
    got = answer(request(n_predict=20, n_probs=n_probs))
    assert [one.chosen.token for one in got.probs] == (got.tokens if n_probs else [])
    for one in got.probs:
        values = [likely.logprob for likely in one.top]
        assert len(values) == n_probs
        assert values == sorted(values, reverse=True)
        assert all(likely.logprob == one.chosen.logprob for likely in one.top if likely.token == one.chosen.token)


def test_probabilities_wait_with_their_tokens() -> None:
    """Tokens of a character that is incomplete come together, and so do their entries; nothing is lost at the end."""
    driver = Driver()
    driver.submit(request(n_predict=40, n_probs=2))
    deltas = []
    while not driver.engine.is_idle:
        deltas += [event for event in driver.step() if isinstance(event, Delta)]
    assert any(len(delta.tokens) > 1 for delta in deltas)
    for delta in deltas:
        assert delta.probs is not None
        assert [one.chosen.token for one in delta.probs] == delta.tokens


def test_a_delta_has_no_probabilities_unasked() -> None:
    driver = Driver()
    driver.submit(request())
    while not driver.engine.is_idle:
        assert all(event.probs is None for event in driver.step() if isinstance(event, Delta))


# Limits


@pytest.mark.parametrize("context_shift", [True, False])
@pytest.mark.parametrize("n_predict", [0, 1, 2, 17])
def test_exactly_n_predict_tokens_are_generated(n_predict: int, context_shift: bool) -> None:
    got = answer(request(n_predict=n_predict), context_shift=context_shift)
    finished = ended(got)
    assert len(got.tokens) == n_predict == finished.timings.predicted_n
    assert (finished.reason, finished.stop_type) == (FinishReason.LENGTH, StopType.LIMIT)
    assert not finished.truncated


def test_n_predict_0_computes_the_prompt_and_says_nothing() -> None:
    driver = Driver()
    driver.submit(request("r", prompt(20), n_predict=0))
    driver.run()
    got = driver.transcripts["r", 0]
    assert (got.tokens, got.text) == ([], "")
    assert ended(got).n_resident == 20
    assert sum(len(batch) for batch in driver.runner.batches) == 20
    assert not any(run.n_outputs for batch in driver.runner.batches for run in batch.runs)


@pytest.mark.parametrize("t_max", [1, 30, 100])
def test_a_time_limit_ends_generation_with_a_line(t_max: int) -> None:
    """With the first line that ends after it; the clock of the tests passes with every look at it."""
    runner = FakeRunner(n_vocab=11)  # the last of them is the line feed
    got = answer(request(n_predict=1000, t_max_predict_ms=t_max), runner=runner)
    finished = ended(got)
    assert (finished.reason, finished.stop_type) == (FinishReason.LENGTH, StopType.LIMIT)
    assert got.text.endswith("\n")
    assert finished.timings.predicted_ms > t_max
    assert 1 < len(got.tokens) < 1000


def test_a_line_that_is_not_indented_ends_generation() -> None:
    """The fake knows no blanks, so its first new line is one."""
    runner = FakeRunner(n_vocab=14)
    got = answer(request(n_predict=1000, n_indent=1, n_probs=1), runner=runner)
    assert ended(got).stop_type is StopType.LIMIT
    assert got.text.endswith("\n")
    assert got.text.count("\n") == 1


@pytest.mark.parametrize("t_max", [-1, 0, 10**6])
def test_a_time_limit_that_does_not_come_changes_nothing(t_max: int) -> None:
    assert answer(request(n_predict=200, t_max_predict_ms=t_max)).text == answer(request(n_predict=200)).text


@pytest.mark.parametrize("of_server", [True, False])
@pytest.mark.parametrize("n_prompt", [1, 8, N_CTX - 2, N_CTX - 1])
def test_without_a_shift_prompt_and_answer_fill_the_context_exactly(n_prompt: int, of_server: bool) -> None:
    asked = request(prompt=prompt(n_prompt), n_predict=-1, may_shift=of_server)
    got = answer(asked, context_shift=not of_server, n_ctx=N_CTX)
    finished = ended(got)
    assert n_prompt + len(got.tokens) == N_CTX
    assert finished.truncated
    assert finished.stop_type is StopType.LIMIT


def test_without_a_shift_n_predict_tokens_that_fit_are_not_truncated() -> None:
    got = answer(request(prompt=prompt(8), n_predict=N_CTX - 9), context_shift=False, n_ctx=N_CTX)
    assert len(got.tokens) == N_CTX - 9
    assert not ended(got).truncated


def test_a_memory_that_cannot_shift_ends_at_the_context() -> None:
    runner = FakeRunner(memory=FakeMemory(can_shift=False))
    got = answer(request(prompt=prompt(8), n_predict=-1), runner=runner, n_ctx=N_CTX)
    assert len(got.tokens) == N_CTX - 8
    assert ended(got).truncated


@pytest.mark.parametrize("n_prompt", [3, N_CTX - 1])
def test_with_a_shift_an_answer_may_be_longer_than_the_context(n_prompt: int) -> None:
    got = answer(request(prompt=prompt(n_prompt), n_predict=3 * N_CTX), n_ctx=N_CTX)
    assert len(got.tokens) == 3 * N_CTX
    assert ended(got).truncated
    assert ended(got).n_resident < N_CTX


@pytest.mark.parametrize("context_shift", [True, False])
@pytest.mark.parametrize("n_prompt", [N_CTX, N_CTX + 1, 5 * N_CTX])
def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(n_prompt: int, context_shift: bool) -> None:
    driver = Driver(n_ctx=N_CTX, context_shift=context_shift)
    with pytest.raises(errors.ContextExceeded) as caught:
        driver.engine.submit(request(prompt=prompt(n_prompt)))
    assert caught.value.details == {"n_prompt_tokens": n_prompt, "n_ctx": N_CTX}
    assert "exceeds the available context size" in caught.value.message
    assert driver.engine.is_idle


@pytest.mark.parametrize(("field", "value"), [("n", 5), ("n", 0), ("id_slot", 4), ("id_slot", 99)])
def test_what_the_slots_cannot_do_is_refused_and_named(field: str, value: int) -> None:
    driver = Driver(n_slots=4)
    with pytest.raises(errors.InvalidRequest) as caught:
        driver.engine.submit(request(**{field: value}))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert driver.engine.is_idle


def test_an_empty_prompt_has_an_empty_answer() -> None:
    driver = Driver()
    driver.submit(request("r", (), n=2))
    driver.run()
    for index in range(2):
        got = driver.transcripts["r", index]
        assert got.tokens == []
        assert ended(got).stop_type is StopType.NONE


# Ends


def test_the_end_of_generation_is_a_token_without_text() -> None:
    got = answer(request(n_predict=-1, sampling={"ignore_eos": False}), runner=FakeRunner(n_vocab=4))
    assert got.tokens.index(EOG) == len(got.tokens) - 1
    assert len(got.text) == len(got.tokens) - 1
    assert (ended(got).reason, ended(got).stop_type) == (FinishReason.STOP, StopType.EOS)
    assert ended(got).timings.predicted_n == len(got.tokens)


def test_special_tokens_have_text_when_it_is_asked_for() -> None:
    asked = request(n_predict=-1, special=True, sampling={"ignore_eos": False})
    got = answer(asked, runner=FakeRunner(n_vocab=4))
    assert len(got.text) == len(got.tokens)


def test_an_end_of_generation_on_the_last_allowed_token_is_an_end_of_generation() -> None:
    asked = request(n_predict=-1, sampling={"ignore_eos": False})
    n_tokens = len(answer(asked, runner=FakeRunner(n_vocab=4)).tokens)
    asked = request(n_predict=n_tokens, sampling={"ignore_eos": False})
    assert ended(answer(asked, runner=FakeRunner(n_vocab=4))).stop_type is StopType.EOS


def test_ignore_eos_goes_on_to_the_limit() -> None:
    got = answer(request(n_predict=50, sampling={"ignore_eos": True}), runner=FakeRunner(n_vocab=4))
    assert len(got.tokens) == 50
    assert EOG not in got.tokens
    assert ended(got).stop_type is StopType.LIMIT


@pytest.mark.parametrize("n_least", [0, 1, 6, 30])
@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("n_probs", [0, 2])
def test_no_token_ends_a_text_before_its_least_length(n_least: int, ignore_eos: bool, n_probs: int) -> None:
    """The token at which it stops has no text, and counts."""
    asked = request(
        n_predict=200, n_least=n_least, stop_tokens=(3, 5), n_probs=n_probs, sampling={"ignore_eos": ignore_eos}
    )
    runner = FakeRunner(n_vocab=7)
    got = answer(asked, runner=runner)
    ends = {3, 5} if ignore_eos else {EOG, 3, 5}
    assert len(got.tokens) > n_least
    assert [token in ends for token in got.tokens] == [False] * (len(got.tokens) - 1) + [True]
    assert got.text == b"".join(runner.piece(token, False) for token in got.tokens[:-1]).decode()
    assert len(got.probs) == (len(got.tokens) if n_probs else 0)
    end, last = ended(got), got.tokens[-1]
    assert end.timings.predicted_n == len(got.tokens)
    assert end.stop_type is (StopType.EOS if last == EOG else StopType.WORD)
    assert end.stopping_word == ("" if last == EOG else chr(last))


def test_a_stop_string_that_begins_in_the_least_length_is_text() -> None:
    for n_least in range(12):
        text = answer(request(n_predict=20, n_least=n_least), runner=FakeRunner(n_vocab=ASCII)).text
        got = answer(request(n_predict=20, n_least=n_least, stop=(text[5:8],)), runner=FakeRunner(n_vocab=ASCII))
        assert got.text == (text[:5] if n_least <= 5 else text)


def test_a_complete_grammar_ends_a_text_before_its_least_length() -> None:
    asked = request(n_predict=50, n_least=20, grammar=FakeGrammar(n_tokens=4), sampling={"ignore_eos": False})
    got = answer(asked)
    assert ended(got).stop_type is StopType.EOS
    assert len(got.tokens) < 20


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("start", [0, 3, 11])
def test_a_stop_string_ends_the_text_in_front_of_it(start: int, length: int) -> None:
    text = answer(request(n_predict=20), runner=FakeRunner(n_vocab=ASCII)).text
    word = text[start : start + length]
    got = answer(request(n_predict=20, stop=("never", word)), runner=FakeRunner(n_vocab=ASCII))
    finished = ended(got)
    assert got.text == text[: text.index(word)]
    assert (finished.reason, finished.stop_type, finished.stopping_word) == (FinishReason.STOP, StopType.WORD, word)
    assert len(got.tokens) == text.index(word) + length
    assert finished.has_new_line == ("\n" in got.text)


def test_text_held_back_for_a_stop_string_is_said_when_generation_ends() -> None:
    text = answer(request(n_predict=9), runner=FakeRunner(n_vocab=ASCII)).text
    got = answer(request(n_predict=9, stop=(text[6:] + "x",)), runner=FakeRunner(n_vocab=ASCII))
    assert got.text == text
    assert ended(got).stop_type is StopType.LIMIT


def test_a_stop_string_on_the_last_allowed_token_is_a_stop_string() -> None:
    text = answer(request(n_predict=9), runner=FakeRunner(n_vocab=ASCII)).text
    got = answer(request(n_predict=9, stop=(text[7:],)), runner=FakeRunner(n_vocab=ASCII))
    assert got.text == text[: text.index(text[7:])]
    assert ended(got).stop_type is StopType.WORD


def test_the_text_is_that_of_the_tokens_whatever_bytes_they_are() -> None:
    runner = FakeRunner()
    got = answer(request(n_predict=200), runner=runner)
    whole = b"".join(runner.piece(token, False) for token in got.tokens)
    assert got.text == whole.decode("utf-8", "replace")


# Abort


def others() -> list[Request]:
    return [request("one", prompt(9), n_predict=25), request("two", (*prompt(5), 3), n_predict=25)]


def is_running(driver: Driver, request_id: str) -> bool:
    return any(sequence.request_id == request_id for sequence in driver.engine.running)


@pytest.mark.parametrize("phase", ["waiting", "prefill", "decode"])
def test_an_abort_frees_its_slot_within_one_step_and_leaves_the_others_alone(phase: str) -> None:
    driver = Driver(FakeRunner(n_ubatch=8), n_slots=3, n_ctx=256)
    for asked in others():
        driver.submit(asked)
    if phase == "waiting":
        driver.submit(request("in the way", (50,), n_predict=40))
    driver.submit(request("victim", (60, *prompt(150)), n_predict=1000))
    driver.step()
    if phase == "decode":
        while not driver.transcripts["victim", 0].tokens:
            driver.step()
    driver.submit(request("next", (70,), n_predict=3))
    driver.step()
    assert is_running(driver, "victim") == (phase != "waiting")
    assert bool(driver.transcripts["victim", 0].tokens) == (phase == "decode")
    assert not is_running(driver, "next")

    driver.abort("victim")
    assert not is_running(driver, "victim")
    assert driver.engine.check_integrity() == []
    driver.step()
    assert is_running(driver, "next") == (phase != "waiting")
    assert driver.engine.n_waiting == (phase == "waiting")
    driver.run()
    for asked in others():
        assert driver.transcripts[asked.request_id, 0].tokens == alone(asked, n_ctx=256)[0].tokens


def test_an_abort_takes_all_choices_with_it() -> None:
    driver = Driver(FakeRunner(n_ubatch=8), n_slots=2)
    driver.submit(request("r", prompt(40), n=2, n_predict=100))
    driver.step()
    driver.abort("r")
    assert driver.engine.is_idle
    assert driver.step() == []


def test_an_abort_before_its_first_step_leaves_nothing_behind() -> None:
    driver = Driver()
    for tokens in ((), (1, 2)):
        driver.submit(request("r", tokens))
        driver.abort("r")
        assert driver.engine.is_idle
        assert driver.step() == []


def test_an_abort_of_what_is_unknown_or_over_changes_nothing() -> None:
    driver = Driver()
    driver.engine.abort("nobody")
    driver.submit(request("r"))
    driver.run()
    driver.engine.abort("r")
    assert len(driver.transcripts["r", 0].tokens) == 8
    assert driver.engine.is_idle
    # Its name may be used again.
    driver.engine.submit(request("r"))


# Failures


def test_a_refused_sampler_fails_its_own_request() -> None:
    driver = Driver(n_slots=3)
    driver.submit(request("good", prompt(5)))
    driver.submit(request("bad", prompt(6), n=2, sampling={"top_k": 666}))
    driver.submit(request("late", prompt(7)))
    driver.run()
    for index in range(2):
        failed = driver.transcripts["bad", index].failed
        assert failed is not None
        assert failed.error["error"] == "InvalidRequest"
        assert failed.error["details"] == {"field": "top_k"}
        assert driver.transcripts["bad", index].started is None
    for name, n_prompt in (("good", 5), ("late", 7)):
        assert driver.transcripts[name, 0].tokens == alone(request(name, prompt(n_prompt)))[0].tokens


class NanRunner(FakeRunner):
    """The rows of the sampler with seed 666 turn into NaN at its third token."""

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        tokens = super().sample(asks)
        for i, ask in enumerate(asks):
            sampler = ours(ask.sampler)
            if sampler.seed == 666 and sampler.n_sampled == 3:
                tokens[i] = [-1]
        return tokens


def test_a_row_that_is_not_a_number_fails_its_own_request_and_is_not_reused() -> None:
    driver = Driver(NanRunner(), n_slots=2)
    driver.submit(request("good", prompt(5), n_predict=20))
    driver.submit(request("sick", (90, *prompt(9)), sampling={"seed": 666}))
    driver.run()
    sick = driver.transcripts["sick", 0]
    assert sick.failed is not None
    assert sick.failed.error["error"] == "ServerFault"
    assert "NaN" in sick.failed.error["message"]
    assert len(sick.tokens) == 2
    assert driver.transcripts["good", 0].tokens == alone(request("good", prompt(5), n_predict=20))[0].tokens
    assert sick.started is not None
    assert len(driver.engine.cache.slots[sick.started.id_slot].resident) == 0
    assert driver.runner.memory.cells == [], "wiped as soon as nobody ran any more"


def test_without_room_cached_cells_are_given_up_before_anybody_fails() -> None:
    driver = Driver(FakeRunner(memory=FakeMemory(n_cells=60)), n_slots=2)
    driver.submit(request("first", prompt(40)))
    driver.run()
    second = request("second", (90, *prompt(40)), n_predict=5)
    driver.submit(second)
    driver.run()
    assert driver.transcripts["second", 0].tokens == alone(second)[0].tokens


@pytest.mark.parametrize("n_probs", [0, 2])
def test_without_any_room_the_latest_comer_waits_and_both_complete(n_probs: int) -> None:
    """What it has said and told by then is not said again."""
    driver = Driver(FakeRunner(memory=FakeMemory(n_cells=120)), n_slots=2, n_ctx=100)
    options = {"n_probs": n_probs, "n_prompt_probs": n_probs, "return_progress": True}
    first = request("first", prompt(20), n_predict=75, **options)
    second = request("second", (90, *prompt(10)), n_predict=80, **options)
    for one in (first, second):
        driver.submit(one)
    driver.run()
    assert driver.met["a sequence that gave way"]
    for one in (first, second):
        got, expected = driver.transcripts[one.request_id, 0], alone(one, n_ctx=100)[0]
        assert (got.tokens, got.probs, got.prompt_probs) == (expected.tokens, expected.probs, expected.prompt_probs)


@pytest.mark.parametrize("n_keep", [0, 3])
@pytest.mark.parametrize("n_discard", [1, 8])
def test_shifts_where_a_pool_is_full_change_no_text(
    n_keep: int, n_discard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares cells with whom, and whoever gives way in the very step of a shift."""
    monkeypatch.setattr(admission, "N_SPARE", 2)
    met: Counter[str] = Counter()
    params = {"n_keep": n_keep, "n_discard": n_discard}
    asked = [
        request("first", prompt(20), n_predict=60, **params),
        request("second", prompt(20), n=2, n_predict=40, **params),
        request("third", (*prompt(12), 90), n_predict=50, **params),
    ]
    solos = {one.request_id: alone(one, n_ctx=32) for one in asked}
    for n_cells in range(33, 129, 5):
        driver = Driver(FakeRunner(memory=FakeMemory(n_cells=n_cells)), n_slots=4, n_ctx=32)
        for one in asked:
            driver.submit(one)
        driver.run()
        for (request_id, index), got in driver.transcripts.items():
            assert got.failed is None, (n_cells, request_id, index)
            assert got.tokens == solos[request_id][index].tokens, (n_cells, request_id, index)
        met += driver.met
    assert met["a sequence that gave way"] > 10


def test_nobody_overtakes_one_that_waits_for_room() -> None:
    driver = Driver(FakeRunner(memory=FakeMemory(n_cells=130)), n_slots=4, n_ctx=128)
    driver.submit(request("first", prompt(60), n_predict=30))
    driver.step()
    driver.submit(request("large", (90, *prompt(100)), n_predict=2))
    driver.submit(request("small", (91, 2, 3), n_predict=2))
    driver.run()
    ends = [(key, one.finished) for key, one in driver.transcripts.items()]
    assert all(end is not None for _, end in ends)
    assert driver.met["a sequence that gave way"] == 0


def test_a_step_that_makes_no_progress_is_detected() -> None:
    driver = Driver(n_slots=1)
    driver.engine.cache.take(driver.engine.cache.slots[0], 0)  # a slot that leaked: busy, and nobody's
    assert driver.engine.check_integrity() == ["slot 0: busy without a sequence"]
    driver.submit(request())
    with pytest.raises(AssertionError, match="no progress"):
        driver.step()


def test_a_step_with_nothing_to_do_computes_nothing() -> None:
    driver = Driver()
    assert driver.step() == []
    assert driver.runner.batches == []


# Reports


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(1, 3), st.booleans()), min_size=1, max_size=6
    ),
    n_ubatch=st.sampled_from([5, 32]),
)
def test_events_come_in_order_and_their_counts_add_up(asked: list[tuple[int, int, int, bool]], n_ubatch: int) -> None:
    driver = Driver(FakeRunner(n_ubatch=n_ubatch, n_vocab=50), n_slots=3)
    for i, (n_prompt, n_predict, n, ignore_eos) in enumerate(asked):
        sampling = {"ignore_eos": ignore_eos, "temperature": 1.0}
        driver.submit(request(f"r{i}", prompt(n_prompt), n=n, n_predict=n_predict, sampling=sampling))
    told: dict[tuple[str, int], list[Started | Delta | Finished | Failed]] = {}
    while not driver.engine.is_idle:
        for event in driver.step():
            told.setdefault((event.request_id, event.index), []).append(event)
    assert set(told) == set(driver.transcripts)
    for (request_id, _), events in told.items():
        n_prompt = asked[int(request_id[1:])][0]
        if isinstance(events[0], PrefillStart):
            assert n_prompt > n_ubatch
            del events[0]
        started, *deltas, finished = events
        assert isinstance(started, Started)
        assert isinstance(finished, Finished)
        timings = finished.timings
        assert started.n_prompt == finished.n_prompt == n_prompt
        assert timings.cache_n == started.n_cached < n_prompt
        assert timings.cache_n + timings.prompt_n == n_prompt
        assert started.seed == finished.seed
        assert started.id_slot == finished.id_slot
        n_said = 0
        for delta in deltas:
            assert isinstance(delta, Delta)
            n_said += len(delta.tokens)
            assert delta.timings.predicted_n >= n_said
            assert delta.timings.prompt_n == timings.prompt_n
        assert n_said == timings.predicted_n
        assert timings.queue_ms >= 0
        assert timings.prompt_ms > 0
        assert timings.predicted_ms >= 0


def test_a_delta_keeps_the_timings_of_its_own_moment() -> None:
    driver = Driver(FakeRunner(n_vocab=ASCII))
    driver.submit(request(n_predict=5))
    deltas: list[Delta] = []
    while not driver.engine.is_idle:
        deltas += [event for event in driver.step() if isinstance(event, Delta)]
    assert [delta.timings.predicted_n for delta in deltas] == [1, 2, 3, 4, 5]
    times = [delta.timings.predicted_ms for delta in deltas]
    assert times == sorted(set(times))


def test_time_in_the_queue_is_not_time_at_the_prompt() -> None:
    driver = Driver(n_slots=1)
    driver.submit(request("first", (1,), n_predict=30))
    driver.submit(request("second", (2,), n_predict=1))
    driver.run()
    first, second = (ended(driver.transcripts[name, 0]).timings for name in ("first", "second"))
    assert second.queue_ms > first.predicted_ms > 10 * second.prompt_ms


def test_a_long_prompt_is_not_time_in_the_queue() -> None:
    timings = ended(answer(request(prompt=prompt(60)), runner=FakeRunner(n_ubatch=5))).timings
    assert timings.prompt_ms > 5 * timings.queue_ms > 0


def test_only_a_sampler_with_a_memory_is_told_the_prompt() -> None:
    driver = Driver()
    driver.submit(request("forgetful", prompt(7), n_predict=1))
    driver.submit(request("mindful", prompt(9), n_predict=1, sampling={"repeat_penalty": 1.1}))
    driver.run()
    forgetful, mindful = driver.runner.samplers
    assert forgetful.history == []
    assert mindful.history == [*prompt(9), *driver.transcripts["mindful", 0].tokens]


# Seeds


def test_choices_have_neighbouring_seeds_and_differ() -> None:
    driver = Driver()
    driver.submit(request("r", n=3, sampling={"seed": 40, "temperature": 1.0}))
    driver.run()
    got = [driver.transcripts["r", index] for index in range(3)]
    assert [ended(one).seed for one in got] == [40, 41, 42]
    assert len({tuple(one.tokens) for one in got}) == 3


def test_a_random_seed_is_drawn_told_and_repeatable() -> None:
    asked = request("r", sampling={"seed": RANDOM_SEED, "temperature": 1.0}, n_predict=20)
    first, second = answer(asked), answer(asked)
    assert ended(first).seed != ended(second).seed
    again = answer(request("r", sampling={"seed": ended(first).seed, "temperature": 1.0}, n_predict=20))
    assert again.tokens == first.tokens
    assert first.tokens != second.tokens


def test_how_much_is_cached_is_told_before_the_first_batch_of_the_prompt() -> None:
    driver = Driver()
    driver.submit(request(prompt=tuple(range(1, 41)), return_progress=True))
    [first] = driver.step()
    assert isinstance(first, Progress)
    assert (first.n_processed, driver.runner.batches) == (0, [])
    driver.run()
    assert [one.n_processed for one in driver.transcripts["r", 0].progress] == [0, 32, 40]


def test_a_prompt_of_several_steps_is_told_of_before_the_first() -> None:
    driver = Driver(FakeRunner(n_ubatch=8))
    driver.submit(request("long", prompt=tuple(range(1, 10)), n=2))
    assert driver.step() == [PrefillStart("long", 0, 9, 0)]
    assert driver.runner.batches == []
    driver.submit(request("short", prompt=tuple(range(21, 29))))
    driver.run()
    driver.submit(request("cached", prompt=tuple(range(1, 11))))
    driver.run()
    told = {request_id for (request_id, _), transcript in driver.transcripts.items() if transcript.prefill}
    assert told == {"long"}


def test_with_debug_messages_each_prompt_says_what_ended_its_cached_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    driver = Driver(n_slots=1)
    for request_id, tokens in (("a", (5, 6, 7)), ("b", (5, 6, 8))):
        driver.submit(request(request_id, tokens, n_predict=1))
        driver.run()
    first, second = (record.message for record in caplog.records if record.name == "llamabox.engine.scheduling.misses")
    assert first == "a nothing is cached: all slots are empty"
    assert second.startswith("b slot 0 holds 2 of 3 prompt tokens: token 2 is 8 ")


def test_the_parts_of_a_step_are_timed_and_only_of_one_that_computes() -> None:
    driver = Driver()
    assert driver.engine.step().times is None
    driver.submit(request("a", (1, 2, 3), n_predict=1))
    before = driver.clock.now
    times = driver.engine.step().times
    assert times is not None
    assert min(times.schedule, times.decode, times.sample, times.update) > 0
    assert times.host + times.decode == pytest.approx(driver.clock.now - before, abs=0.0015)
    assert times.host == times.schedule + times.sample + times.update


def test_media_are_refused_where_the_model_takes_none() -> None:
    driver = Driver(FakeRunner(takes_media=False))
    with pytest.raises(errors.InvalidRequest, match="takes no images or sound"):
        driver.submit(request("r", (1, Media(b"a", 3, 3), 2)))
    assert driver.engine.is_idle


@pytest.mark.parametrize(("n_batch", "n_ubatch"), [(16, 8), (8, 16)])
def test_an_image_that_does_not_fit_into_one_computation_is_refused(n_batch: int, n_ubatch: int) -> None:
    driver = Driver(FakeRunner(n_batch=n_batch, n_ubatch=n_ubatch))
    with pytest.raises(errors.InvalidRequest, match=r"an image of 9 tokens .* at most 8 \(--ubatch-size\)"):
        driver.submit(request("large", (1, Media(b"a", 9, 3, is_causal=False), 2)))
    for name, media in (("fits", Media(b"a", 8, 3, is_causal=False)), ("causal", Media(b"a", 9, 3))):
        driver.submit(request(name, (1, media, 2)))
    driver.run()


def test_penalties_look_back_at_the_text_of_a_prompt_and_not_at_its_media() -> None:
    driver = Driver(FakeRunner())
    media = Media(b"a", 3, 1)
    driver.submit(request("r", (1, 2, media, 3), n_predict=1, sampling={"repeat_penalty": 1.3}))
    driver.run()
    assert driver.runner.samplers[0].history[:3] == [1, 2, 3]
    started = driver.transcripts["r", 0].started
    assert started is not None
    assert started.n_prompt == 6


def test_streams_go_on_between_chunks_that_want_a_step_of_their_own() -> None:
    driver = Driver(FakeRunner())
    driver.submit(request("stream", (1,), n_predict=30))
    while not driver.transcripts["stream", 0].tokens:
        driver.step()
    chunks = [Media(bytes([i]), 4, 4, is_causal=False) for i in range(5)]
    driver.submit(request("pictures", (*chunks, 2), n_predict=1))
    driver.run()
    alone = [any(isinstance(run.content, MediaRows) for run in batch.runs) for batch in driver.runner.batches]
    assert sum(alone) == 5
    assert not any(alone[i] and alone[i + 1] for i in range(len(alone) - 1)), "two chunks without a row in between"
