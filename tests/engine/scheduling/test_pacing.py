"""The prefill chunk beside running streams, sized from what steps were measured to take."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamabox.engine.scheduling.pacing import MEDIA_SHARE, MIN_CHUNK, MIN_MEDIA_CHUNK, Pacing

milliseconds = st.floats(1e-4, 10.0)


def measured(pacing: Pacing, decode: float, token: float, *, n_steps: int = 1) -> None:
    """Steps of a machine on which decoding takes `decode` seconds and each prompt token adds `token`."""
    for _ in range(n_steps):
        pacing.observe(n_decode=4, n_prefill=0, seconds=decode)
        pacing.observe(n_decode=4, n_prefill=32, seconds=decode + 32 * token)


def test_before_anything_is_measured_the_chunk_is_the_smallest() -> None:
    pacing = Pacing(factor=3.0)
    assert pacing.chunk(4) == MIN_CHUNK
    pacing.observe(n_decode=1, n_prefill=0, seconds=0.1)
    assert pacing.chunk(4) == MIN_CHUNK


@given(decode=milliseconds, token=milliseconds, factor=st.floats(1.5, 10.0))
def test_a_step_with_the_chunk_takes_no_longer_than_the_set_factor(decode: float, token: float, factor: float) -> None:
    pacing = Pacing(factor=factor)
    measured(pacing, decode, token)
    chunk = pacing.chunk(4)
    if chunk > MIN_CHUNK:
        assert decode + chunk * token <= factor * decode * (1 + 1e-6)
        assert decode + (chunk + 1) * token > factor * decode * (1 - 1e-6)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 512), st.floats(0, 100)), max_size=20))
@example([(0, 8, 1e-320), (4, 0, 100.0)])  # as good as no time for a token
def test_the_chunk_is_never_below_the_smallest_whatever_was_measured(steps: list[tuple[int, int, float]]) -> None:
    pacing = Pacing(factor=3.0)
    for n_decode, n_prefill, seconds in steps:
        pacing.observe(n_decode=n_decode, n_prefill=n_prefill, seconds=seconds)
        assert pacing.chunk(4) >= MIN_CHUNK


def test_prompts_measured_alone_count_without_a_decoding_share() -> None:
    pacing = Pacing(factor=3.0)
    pacing.observe(n_decode=4, n_prefill=0, seconds=0.1)
    pacing.observe(n_decode=0, n_prefill=100, seconds=1.0)
    assert pacing.chunk(4) == 20  # (3 - 1) * 100 ms at 10 ms a token


def test_time_in_which_nobody_is_due_is_filled() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001)
    assert pacing.chunk(4) == 200
    assert pacing.chunk(4, idle=0.05) == 250


def test_the_more_prompts_wait_for_one_stream_the_longer_it_waits() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001)
    assert [pacing.chunk(4, n_prompts) for n_prompts in (0, 1, 4, 6, 16)] == [200, 200, 200, 300, 800]


def test_it_follows_a_machine_that_became_slower() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001)
    assert pacing.chunk(4) == 200
    measured(pacing, 0.1, 0.01, n_steps=40)
    assert pacing.chunk(4) == 20


def test_one_outlier_does_not_overthrow_what_is_known() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001, n_steps=5)
    pacing.observe(n_decode=4, n_prefill=32, seconds=0.1 + 32 * 0.002)
    assert 150 < pacing.chunk(4) < 200


def test_a_step_that_was_held_up_is_no_reason_for_longer_ones() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001, n_steps=5)
    pacing.observe(n_decode=4, n_prefill=0, seconds=10.0)
    assert 200 <= pacing.chunk(4) <= 240


def test_a_handful_of_prompt_tokens_measures_nothing() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001)
    pacing.observe(n_decode=4, n_prefill=MIN_CHUNK - 1, seconds=5.0)
    assert pacing.chunk(4) == 200


@pytest.mark.parametrize("n_drafted", [0, 3, 12])
@pytest.mark.parametrize("n_forced", [0, 1, MIN_CHUNK - 1])
def test_streams_that_always_have_drafts_or_forced_cells_are_measured_too(n_drafted: int, n_forced: int) -> None:
    """Every row takes 10 ms: beside 8 streams a chunk has room for about 16 cells, and never for less than a row's."""
    pacing = Pacing(factor=3.0)
    for _ in range(40):
        for n_prefill in (0, 32):
            n_rows = 8 + n_drafted + n_forced + n_prefill
            pacing.observe(n_decode=8 + n_drafted, n_prefill=n_prefill, n_forced=n_forced, seconds=0.01 * n_rows)
    assert 14 <= pacing.chunk(8) <= 40


def test_many_forced_cells_tell_what_a_prompt_s_cells_take() -> None:
    pacing = Pacing(factor=3.0)
    pacing.observe(n_decode=4, n_prefill=0, seconds=0.1)
    for _ in range(2):
        pacing.observe(n_decode=4, n_prefill=0, n_forced=32, seconds=0.1 + 32 * 0.01)
    assert pacing.chunk(4) in (19, 20)  # (3 - 1) * 100 ms at 10 ms a cell


def test_each_number_of_rows_has_a_time_of_its_own() -> None:
    pacing = Pacing(factor=3.0)
    for n_decode, seconds in ((1, 0.01), (8, 0.05), (16, 0.09)):
        pacing.observe(n_decode=n_decode, n_prefill=0, seconds=seconds)
    pacing.observe(n_decode=0, n_prefill=100, seconds=0.1)
    assert [pacing.chunk(n) for n in (1, 8, 16)] == [20, 100, 180]


@given(st.dictionaries(st.integers(1, 64), milliseconds, min_size=1), st.integers(1, 64))
def test_what_was_not_measured_lies_between_the_nearest_time_and_a_proportional_one(
    known: dict[int, float], n_rows: int
) -> None:
    pacing = Pacing(factor=2.0)
    for n_decode, seconds in known.items():
        pacing.observe(n_decode=n_decode, n_prefill=0, seconds=seconds)
    pacing.observe(n_decode=0, n_prefill=100, seconds=1e-4)
    time = pacing.chunk(n_rows) * 1e-6
    off = min(abs(n - n_rows) for n in known)
    bounds = [t * k for n, t in known.items() if abs(n - n_rows) == off for k in (1.0, n_rows / n)]
    assert min(bounds) - 1e-5 <= time <= max(bounds) + 1e-5


def test_what_streams_have_waited_for_copies_is_taken_from_the_chunk() -> None:
    pacing = Pacing(factor=3.0)
    measured(pacing, 0.1, 0.001)
    assert pacing.chunk(4, idle=-0.05) == 150
    assert pacing.chunk(4, idle=-1.0) == MIN_CHUNK


def test_steps_that_were_held_up_make_no_larger_chunks_of_pictures() -> None:
    """Pictures that come together are read and decoded beside the streams: their own work must not buy them room."""
    pacing = Pacing(factor=2.0)
    pacing.observe(n_decode=4, n_prefill=0, seconds=0.01)
    pacing.observe(n_decode=4, n_prefill=32, seconds=0.042)
    calm = pacing.chunk(4, is_media=True)
    for _ in range(5):
        pacing.observe(n_decode=4, n_prefill=0, seconds=0.05)
    assert pacing.chunk(4) > 1.5 * calm
    assert calm <= pacing.chunk(4, is_media=True) <= 1.2 * calm
    for _ in range(200):  # what lasts is how long steps take
        pacing.observe(n_decode=4, n_prefill=0, seconds=0.05)
    assert pacing.chunk(4, is_media=True) > 3 * calm


@given(decode=milliseconds, token=milliseconds, factor=st.floats(1.5, 10.0))
def test_beside_media_a_step_grows_by_less(decode: float, token: float, factor: float) -> None:
    pacing = Pacing(factor=factor)
    measured(pacing, decode, token)
    usual, chunk = pacing.chunk(4), pacing.chunk(4, is_media=True)
    assert MIN_MEDIA_CHUNK <= chunk <= usual
    if chunk > MIN_MEDIA_CHUNK:
        assert decode + chunk * token <= (1.0 + MEDIA_SHARE * (factor - 1.0)) * decode * (1 + 1e-6)
