"""Prompts of several people at once: how long each waits for its first token, and what that does to running texts."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.batch import Batch, Run
from llamabox.engine.scheduling.pacing import AT_FIRST
from tests.engine.scheduling.timed import LARGE, SMALL, WIDE, Machine, Timed

MACHINES = pytest.mark.parametrize("machine", [SMALL, LARGE, WIDE], ids=["small", "large", "wide"])
STEADY = pytest.mark.parametrize("is_steady", [True, False], ids=["steady", "unsteady"])

ALL_LENGTHS = [29, 27, 31, 28, 33, 26, 30, 25]
"""Of prompts of 24 words."""


def all_at_once(machine: Machine, lengths: list[int]) -> float:
    """Seconds until the last first token where the first prompt goes alone, since it came first, then all others."""
    others = Batch()
    others.add(Run(0, lengths[0], [2], 1))
    for seq_id, n_tokens in enumerate(lengths[1:], 1):
        others.add(Run(seq_id, 0, [2] * n_tokens, 1))
    return machine.seconds(lengths[0]) + machine.passes(others)


@MACHINES
@STEADY
@pytest.mark.parametrize("n_prompts", [2, 4, 8, 16])
def test_prompts_that_come_together_wait_little_longer_than_in_one_batch(
    machine: Machine, is_steady: bool, n_prompts: int
) -> None:
    timed = Timed(machine, is_steady=is_steady)
    lengths = (2 * ALL_LENGTHS)[:n_prompts]
    first = timed.come(lengths[:1])
    timed.step()
    texts = first + timed.come(lengths[1:])
    timed.run(texts)
    expected = all_at_once(machine, lengths)
    assert max(text.tokens[0] for text in texts) - first[0].came <= 1.2 * expected
    # Nor is that bought with the others' time.
    assert sum(text.first for text in texts) <= len(texts) * expected


@MACHINES
@STEADY
def test_texts_that_have_but_begun_wait_for_those_that_came_with_them_and_not_for_long(
    machine: Machine, is_steady: bool
) -> None:
    timed = Timed(machine, is_steady=is_steady)
    texts = timed.come(ALL_LENGTHS)
    timed.run(texts, n_tokens=12)
    one_prompt = machine.seconds(max(ALL_LENGTHS))
    longest = (2 + AT_FIRST) * machine.seconds(len(texts)) + one_prompt
    assert max(max(text.gaps) for text in texts) <= longest


@MACHINES
@STEADY
@pytest.mark.parametrize("n_streams", [1, 4, 8])
@pytest.mark.parametrize("n_prompts", [1, 4, 8])
def test_texts_in_the_middle_wait_no_longer_than_the_factor_says(
    machine: Machine, is_steady: bool, n_streams: int, n_prompts: int
) -> None:
    timed = Timed(machine, is_steady=is_steady)
    streams = timed.come([20] * n_streams, n_predict=200)
    timed.run(streams, n_tokens=20)
    prompts = timed.come([28 + 3 * i for i in range(n_prompts)], n_predict=1)
    timed.run(prompts)
    longest = max(max(text.gaps[18:]) for text in streams)
    patience = max(1.0, n_prompts / n_streams)
    n_cells = max(8.0, patience * machine.seconds(n_streams) / machine.seconds(100) * 100)
    rest = max(8.0, n_cells / 4)
    # Runs of unequal lengths have passes of their own.
    n_passes = 1 if n_prompts == 1 else n_prompts
    most = machine.seconds(n_streams) + machine.seconds(round(n_cells + rest)) + (n_passes - 1) * machine.least
    assert longest <= 1.1 * most


@MACHINES
@STEADY
def test_a_short_prompt_waits_for_no_long_one_of_another(machine: Machine, is_steady: bool) -> None:
    """But for the step in which it comes."""
    timed = Timed(machine, is_steady=is_steady)
    [long] = timed.come([900])
    timed.step()
    came = timed.clock.now
    [short] = timed.come([24])
    timed.run([short])
    assert timed.clock.now - came <= machine.seconds(24) + 1e-9
    assert not long.tokens


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.booleans())
def test_no_prompt_that_a_step_has_room_for_is_cut(lengths: list[int], is_steady: bool) -> None:
    """Nobody runs, so all have room."""
    timed = Timed(SMALL, is_steady=is_steady)
    n_before = len(timed.runner.batches)
    texts = timed.come(lengths, n_predict=1)
    timed.run(texts)
    runs = [run for batch in timed.runner.batches[n_before:] for run in batch.runs]
    assert len(runs) == len(lengths)


@pytest.mark.parametrize("machine", [SMALL, LARGE, WIDE])
@pytest.mark.parametrize(("n_pictures", "n_cells"), [(8, 16), (2, 64), (1, 256)])
def test_texts_keep_their_pace_however_many_pictures_come(machine: Machine, n_pictures: int, n_cells: int) -> None:
    timed = Timed(machine)
    texts = timed.come([20, 20, 20, 20], n_predict=200)
    timed.run(texts, n_tokens=40)
    usual = median(gap for text in texts for gap in text.gaps[-20:])
    n_before = [len(text.tokens) for text in texts]
    pictures = timed.come([30] * n_pictures, n_predict=1, n_cells=n_cells)
    timed.run(pictures)
    gaps = [gap for text, n in zip(texts, n_before, strict=True) for gap in text.gaps[n - 1 :]]
    assert max(gaps) <= 3 * usual
