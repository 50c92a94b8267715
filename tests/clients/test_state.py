from __future__ import annotations

import pytest

from llamabox.clients.state import WorkerState, unavailable

AWAY = "The RPC server a:1 is away"
AGAIN = "It is being restarted: try again"


@pytest.mark.parametrize(
    ("state", "trouble", "sentence"),
    [
        (WorkerState.LOADING, "", "Loading model"),
        (WorkerState.LOADING, AWAY, AWAY),
        (WorkerState.RESTARTING, "", AGAIN),
        (WorkerState.RESTARTING, AWAY, AWAY),
        (WorkerState.FAILED, AWAY, "The model could not be loaded"),
        (WorkerState.STOPPED, AWAY, "The server is stopping"),
    ],
)
def test_a_state_has_one_sentence(state: WorkerState, trouble: str, sentence: str) -> None:
    assert unavailable(state, trouble, restarting=AGAIN).message == sentence
