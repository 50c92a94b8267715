"""Constrained sequences in the engine: what a grammar forces is said without sampling, and nothing else changes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llamabox.engine.events import Delta, FinishReason, StopType
from llamabox.engine.scheduling.pacing import Pacing
from llamabox.engine.scheduling.scheduler import FEW_FORCED, MAX_FORCED
from tests.engine.driver import Driver, Transcript, alone, request
from tests.engine.workbench import Workbench
from tests.fakes import EOG, FakeConstraint, FakeGrammar, FakeRunner


def one(grammar: FakeGrammar, **params: object) -> Transcript:
    return alone(request(grammar=grammar, **{"n_predict": -1, **params}))[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("period", [1, 2, 5, 30])
def test_text_is_the_same_with_and_without_forced_tokens(period: int, temperature: float) -> None:
    """Sampling mixes in how often it drew, so the oracle's sampler must not: one choice in all."""
    sampling = {"temperature": temperature}
    for seed in range(5):
        forced, sampled = (
            one(FakeGrammar(seed=seed, period=period, n_tokens=period, forces=forces), sampling=sampling)
            for forces in (True, False)
        )
        assert forced.tokens == sampled.tokens
        assert len(forced.tokens) == period
        assert forced.text == sampled.text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("period", [1, 2, 5])
def test_text_is_the_same_where_what_is_forced_is_known_a_step_later(period: int, temperature: float) -> None:
    """Nor does it draw more often: what is forced is not sampled, however late it comes."""
    sampling = {"temperature": temperature}
    for seed in range(5):
        at_once, *later = (
            one(FakeGrammar(seed=seed, period=period, guesses=guesses, may_end=True), sampling=sampling)
            for guesses in (0, 1, 2)
        )
        assert at_once.tokens
        assert all((found.tokens, found.text) == (at_once.tokens, at_once.text) for found in later)


def test_forced_tokens_cost_no_steps_and_count_as_predicted() -> None:
    driver = Driver()
    driver.submit(request(grammar=FakeGrammar(n_tokens=24, period=8), n_predict=-1))
    driver.run()
    found = driver.transcripts["r", 0]
    assert len(driver.runner.batches) == 3
    assert len(found.tokens) == 24
    assert found.finished is not None
    assert found.finished.timings.predicted_n == 24


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("stop", [(), ("nothing of the kind",)])
def test_what_is_forced_in_a_step_is_told_in_one_piece_unless_tokens_are_counted_apart(
    stop: tuple[str, ...], by_token: bool
) -> None:
    driver = Driver()
    driver.submit(request(grammar=FakeGrammar(n_tokens=24, period=8), n_predict=-1, stop=stop, by_token=by_token))
    told = []
    while not driver.transcripts["r", 0].is_over:
        told += [len(event.tokens) for event in driver.step() if isinstance(event, Delta)]
    assert sum(told) == 24
    if by_token:
        assert max(told) <= 4, "tokens of one character"
    else:
        assert [n for n in told if n] == [1, 7] * 3


def test_a_complete_text_ends_without_another_token_even_where_the_end_token_is_banned() -> None:
    found = one(FakeGrammar(n_tokens=5), sampling={"ignore_eos": True})
    assert len(found.tokens) == 5
    assert EOG not in found.tokens
    assert found.finished is not None
    assert (found.finished.reason, found.finished.stop_type) == (FinishReason.STOP, StopType.EOS)


def test_a_grammar_of_the_empty_text_ends_at_once() -> None:
    found = one(FakeGrammar(n_tokens=0))
    assert found.tokens == []
    assert found.finished is not None
    assert found.finished.stop_type is StopType.EOS


@pytest.mark.parametrize("n_predict", [1, 2, 3, 7, 19])
@pytest.mark.parametrize("period", [1, 4, 100])
def test_n_predict_is_never_overshot(n_predict: int, period: int) -> None:
    found = one(FakeGrammar(period=period), n_predict=n_predict)
    assert len(found.tokens) == n_predict
    assert found.finished is not None
    assert found.finished.stop_type is StopType.LIMIT


def test_a_stop_string_among_forced_tokens_ends_the_text_there() -> None:
    whole = one(FakeGrammar(period=100))
    word = whole.text[9:11]
    found = one(FakeGrammar(period=100), stop=(word,))
    assert found.text == whole.text[: whole.text.index(word)]
    assert found.finished is not None
    assert found.finished.stop_type is StopType.WORD


def test_with_log_probabilities_every_token_is_sampled_and_has_its_own() -> None:
    grammar = FakeGrammar(n_tokens=20, period=20)
    driver = Driver()
    driver.submit(request(grammar=grammar, n_predict=-1, n_probs=2))
    driver.run()
    found = driver.transcripts["r", 0]
    assert found.tokens == one(grammar).tokens
    assert [probs.chosen.token for probs in found.probs] == found.tokens
    assert len(driver.runner.batches) == 20


def test_penalties_see_forced_tokens() -> None:
    driver = Driver()
    grammar = FakeGrammar(n_tokens=20, period=5)
    driver.submit(request(grammar=grammar, n_predict=-1, sampling={"repeat_penalty": 1.3}))
    driver.run()
    assert driver.runner.samplers[0].history == [1, 2, 3, *driver.transcripts["r", 0].tokens]


@pytest.mark.parametrize("fails_at", [0, 1, 6])
def test_a_grammar_that_cannot_go_on_fails_its_own_sequence_only(fails_at: int) -> None:
    driver = Driver()
    driver.submit(request("sick", grammar=FakeGrammar(fails_at=fails_at), n_predict=-1))
    driver.submit(request("good", (4, 5), n_predict=30))
    driver.run()
    sick = driver.transcripts["sick", 0]
    assert sick.failed is not None
    assert sick.failed.error["error"] == "InvalidRequest"
    assert driver.transcripts["good", 0].tokens == alone(request("good", (4, 5), n_predict=30))[0].tokens


def test_endless_forced_tokens_come_in_steps_of_a_bounded_size() -> None:
    """Each step ends, so that others are served and an abort is heard."""
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=512), n_ctx=2048)
    driver.submit(request(grammar=FakeGrammar(n_tokens=10**9, period=10**9), n_predict=-1))
    for _ in range(50):
        said = sum(len(event.tokens) for event in driver.step() if isinstance(event, Delta))
        assert said <= 1 + MAX_FORCED
    driver.abort("r")
    driver.run()


@pytest.mark.parametrize("n_probs", [0, 1])
def test_no_mask_is_computed_where_the_grammar_leaves_no_choice(n_probs: int) -> None:
    driver = Driver(FakeRunner(n_batch=512, n_ubatch=512), n_ctx=2048)
    driver.submit(request(grammar=FakeGrammar(n_tokens=10**9, period=400), n_predict=-1, n_probs=n_probs))
    n_generated, n_masks = 0, 0
    while n_generated < 1000:
        driver.step()
        [sequence] = driver.engine.running
        assert isinstance(sequence.constraint, FakeConstraint)
        n_generated, n_masks = sequence.n_generated, sequence.constraint.n_masks
    assert n_masks == (n_generated + 1 if n_probs else 3)
    driver.abort("r")
    driver.run()


@pytest.mark.parametrize(("rate", "n_at_once"), [(1, 1), (20, 1), (40, 2), (200, 10)])
def test_forced_tokens_keep_to_a_speed_limit_without_coming_in_a_lump(rate: int, n_at_once: int) -> None:
    driver = Driver()
    driver.submit(request(grammar=FakeGrammar(n_tokens=60, period=20), n_predict=-1, tokens_per_second=rate))
    n_generated = [0]
    while not driver.transcripts["r", 0].is_over:
        driver.step()
        n_generated += [sequence.n_generated for sequence in driver.engine.running]
    gained = [after - before for before, after in pairwise(n_generated)]
    assert max(gained) == n_at_once
    assert driver.transcripts["r", 0].tokens == one(FakeGrammar(n_tokens=60, period=20)).tokens


def test_forced_cells_go_before_prompts_and_not_for_prompts() -> None:
    pacing = Pacing(factor=2.0)
    bench = Workbench(n_batch=64, pacing=pacing)
    decoding = bench.add_decoding()
    decoding.cells.extend(range(100, 110))
    bench.add(tuple(range(300)))
    work = bench.plan()
    cells = {share.sequence: share.stop - share.sequence.n_computed for share in work.shares}
    assert cells[decoding] == 11
    assert (work.n_decode, work.n_forced) == (1, 10)
    assert work.n_prefill == sum(cells.values()) - 11


def test_forced_cells_fit_into_a_batch_with_a_row_for_everybody() -> None:
    bench = Workbench(n_batch=8)
    decoding = [bench.add_decoding((i + 1,)) for i in range(3)]
    decoding[0].cells.extend(range(100, 150))
    work = bench.plan()
    assert {share.sequence for share in work.shares} == set(decoding)
    assert len(work.batch) == 8


@pytest.mark.parametrize("mixes", [True, False])
@pytest.mark.parametrize("seconds_a_cell", [0.0001, 0.002, 0.02])
def test_forced_cells_beside_a_stream_keep_to_the_pace_of_prompts(mixes: bool, seconds_a_cell: float) -> None:
    pacing = Pacing(factor=2.0)
    for n_rows in (1, 2):
        pacing.observe(n_decode=n_rows, n_prefill=0, seconds=0.02)
    pacing.observe(n_decode=0, n_prefill=100, seconds=100 * seconds_a_cell)
    bench = Workbench(n_batch=512, n_chunk=512, pacing=pacing, mixes=mixes)
    stream, forced = bench.add_decoding(), bench.add_decoding((2,))
    forced.cells.extend(range(100, 100 + MAX_FORCED))
    most = max(FEW_FORCED, pacing.chunk(1, 1))
    n_generated, n_computed = forced.n_generated, [forced.n_computed]
    while forced.n_generated == n_generated:
        n_said = stream.n_generated
        bench.step()
        n_computed.append(forced.n_computed)
        assert stream.n_generated > n_said or not mixes
    runs = [after - before for before, after in pairwise(n_computed) if after > before]
    assert max(runs) <= min(most, 1 + MAX_FORCED)
    assert sum(runs) == 1 + MAX_FORCED
    assert mixes or min(runs) > 1  # else low bits of the row would depend on the stream beside it


@pytest.mark.parametrize("mixes", [True, False])
def test_forced_cells_go_whole_where_nobody_else_runs(mixes: bool) -> None:
    pacing = Pacing(factor=2.0)
    pacing.observe(n_decode=1, n_prefill=0, seconds=0.02)
    pacing.observe(n_decode=0, n_prefill=100, seconds=2.0)
    bench = Workbench(n_batch=512, n_chunk=512, pacing=pacing, mixes=mixes)
    forced = bench.add_decoding()
    forced.cells.extend(range(100, 100 + MAX_FORCED))
    bench.step()
    assert forced.n_owed == 1  # the token that the last row yields
