"""What the options say of the threads that compute."""

from __future__ import annotations

import pytest

from llamabox.machine import processors
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.threads import are_crowded


@pytest.mark.parametrize(("plain", "batch", "crowded"), [(4, 4, False), (4, 5, True), (5, 4, True), (1, 1, False)])
def test_threads_are_crowded_where_a_step_has_more_than_the_processors(
    monkeypatch: pytest.MonkeyPatch, plain: int, batch: int, crowded: bool
) -> None:
    monkeypatch.setattr(processors, "n_logical", lambda: 4)
    config = TextConfig(model="", n_threads=plain, n_threads_batch=batch)
    assert are_crowded(config) == crowded
