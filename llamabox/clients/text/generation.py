"""One request's events, on their way from the worker to whoever writes the answer."""

from __future__ import annotations

from collections.abc import Callable

from llamabox.clients.inbox import MAX_LAG, Ending, Inbox
from llamabox.engine.events import Delta, Event, Failed, Finished, PrefillStart
from llamabox.errors import ClientTooSlow
from llamabox.wire.common import read_error
from llamabox.wire.text import Submit

MAX_LAG_PROBS = 1 << 19
"""Log-probabilities that may wait in events, at about 130 bytes each: one event may bring the whole vocabulary's."""


class Generation(Inbox[Event]):
    """A request's events; it ends after the last of its n sequences. A consumer that is too slow is failed."""

    __slots__ = ("_leave", "_max_lag", "_n_running", "has_begun", "submit")

    def __init__(self, submit: Submit, leave: Callable[[Generation, Ending], None], max_lag: int = MAX_LAG) -> None:
        """`leave` is called once, when the worker has nothing more to say that matters."""
        super().__init__()
        self.submit = submit
        self.has_begun = False  # the worker has told something of it that another one would tell again
        self._leave = leave
        self._max_lag = max_lag
        self._n_running = submit.params.n

    def push(self, event: Event) -> None:
        if self.is_closed:
            return
        self.has_begun = self.has_begun or not isinstance(event, PrefillStart)
        if isinstance(event, Failed):
            self.fail(read_error(event.error))
            return
        n_waiting = len(self._events)
        if n_waiting >= self._max_lag or self._weight > MAX_LAG_PROBS:
            self._clear()
            self.fail(ClientTooSlow(f"the client is too slow: {n_waiting} events were waiting for it"))
            return
        super().push(event)
        if isinstance(event, Finished):
            self._n_running -= 1
            if not self._n_running:
                self._complete()

    def _on_end(self, ending: Ending) -> None:
        self._leave(self, ending)

    def _weigh(self, event: Event) -> int:
        """Log-probabilities in it, one a token aside."""
        return sum(len(one.top) for one in event.probs) if isinstance(event, Delta) and event.probs else 0
