"""The stages of a worker's life, and the error that a client gets in each of them."""

from __future__ import annotations

import enum

from llamabox.errors import Unavailable

LOADING = "Loading model"


class WorkerState(enum.Enum):
    """Requests are taken in READY only."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"  # it died after a successful load, or was ended so that another can begin
    FAILED = "failed"  # the first load failed: final
    STOPPED = "stopped"


def unavailable(state: WorkerState, trouble: str = "", restarting: str = LOADING) -> Unavailable:
    """The error of a request in `state`. `trouble` says what the worker waits for where that is not the model.

    `restarting` is said of a worker that is being restarted, or whose model is not known yet.
    """
    match state:
        case WorkerState.FAILED:
            return Unavailable("The model could not be loaded")
        case WorkerState.STOPPED:
            return Unavailable("The server is stopping")
        case WorkerState.LOADING:
            return Unavailable(trouble or LOADING)
    return Unavailable(trouble or restarting)
