"""The prefill chunk beside running streams, sized from what steps were measured to take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.pacing import MIN_CHUNK, Pacing

milliseconds = st.floats(1e-4, 10.0)


def measured(pacing: Pacing, decode: float, token: float, *, n_steps: int = 1) -> None:
    """Steps of a machine on which decoding takes `decode` seconds and each prompt token adds `token`."""
    for _ in range(n_steps):
        pacing.observe(n_decode=4, n_prefill=0, seconds=decode)
        pacing.observe(n_decode=4, n_prefill=32, seconds=decode + 32 * token)


def test_before_anything_is_measured_the_chunk_is_the_smallest() -> None:
    pacing = Pacing()
    assert pacing.chunk() == MIN_CHUNK
    pacing.observe(n_decode=1, n_prefill=0, seconds=0.1)
    assert pacing.chunk() == MIN_CHUNK


@given(decode=milliseconds, token=milliseconds, factor=st.floats(1.5, 10.0))
def test_a_step_with_the_chunk_takes_no_longer_than_the_set_factor(decode: float, token: float, factor: float) -> None:
    pacing = Pacing(factor=factor)
    measured(pacing, decode, token)
    chunk = pacing.chunk()
    if chunk > MIN_CHUNK:
        assert decode + chunk * token <= factor * decode * (1 + 1e-6)
        assert decode + (chunk + 1) * token > factor * decode * (1 - 1e-6)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 512), st.floats(0, 100)), max_size=20))
def test_the_chunk_is_never_below_the_smallest_whatever_was_measured(steps: list[tuple[int, int, float]]) -> None:
    pacing = Pacing()
    for n_decode, n_prefill, seconds in steps:
        pacing.observe(n_decode=n_decode, n_prefill=n_prefill, seconds=seconds)
        assert pacing.chunk() >= MIN_CHUNK


def test_prompts_measured_alone_count_without_a_decoding_share() -> None:
    pacing = Pacing()
    pacing.observe(n_decode=1, n_prefill=0, seconds=0.1)
    pacing.observe(n_decode=0, n_prefill=100, seconds=1.0)
    assert pacing.chunk() == 20  # (3 - 1) * 100 ms at 10 ms a token


def test_time_in_which_nobody_is_due_is_filled() -> None:
    pacing = Pacing()
    measured(pacing, 0.1, 0.001)
    assert pacing.chunk() == 200
    assert pacing.chunk(0.05) == 250


def test_it_follows_a_machine_that_became_slower() -> None:
    pacing = Pacing()
    measured(pacing, 0.1, 0.001)
    assert pacing.chunk() == 200
    measured(pacing, 0.1, 0.01, n_steps=40)
    assert pacing.chunk() == 20


def test_one_outlier_does_not_overthrow_what_is_known() -> None:
    pacing = Pacing()
    measured(pacing, 0.1, 0.001, n_steps=5)
    pacing.observe(n_decode=4, n_prefill=32, seconds=0.1 + 32 * 0.002)
    assert 150 < pacing.chunk() < 200


def test_a_handful_of_prompt_tokens_measures_nothing() -> None:
    pacing = Pacing()
    measured(pacing, 0.1, 0.001)
    pacing.observe(n_decode=4, n_prefill=MIN_CHUNK - 1, seconds=5.0)
    assert pacing.chunk() == 200
