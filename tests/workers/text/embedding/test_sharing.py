"""Neither generating nor embedding starves the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.workers.text.embedding.sharing import GAP, Sharing

durations = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60)


@given(durations)
def test_while_both_have_work_each_gets_half_of_the_time(steps: list[float]) -> None:
    sharing = Sharing()
    generated = embedded = 0.0
    for seconds in steps:
        if sharing.embeds_next:
            sharing.embedded(seconds, contested=True)
            embedded += seconds
        else:
            sharing.generated(seconds, contested=True)
            generated += seconds
        assert abs(generated - embedded) <= max(steps) + 1e-9


@given(st.floats(0.001, 1.0))
def test_what_had_nobody_to_share_with_is_not_held_against_anybody(seconds: float) -> None:
    sharing = Sharing()
    for _ in range(100):
        sharing.embedded(seconds, contested=False)
    sharing.generated(seconds, contested=True)
    assert sharing.embeds_next
    for _ in range(100):
        sharing.generated(seconds, contested=False)
    assert not sharing.embeds_next


def test_a_batch_between_two_steps_lasts_no_longer_than_a_few_of_them() -> None:
    sharing = Sharing()
    sharing.generated(0.025, contested=True)
    assert sharing.budget == pytest.approx(GAP * 0.025)
