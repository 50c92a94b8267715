"""The server's memory of each slot's last task, for GET /slots: the worker knows counts, the server settings."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.engine.events import Finished, Started
from llamabox.server.fields.request import Options


@dataclass(slots=True)
class Page:
    """The last task of one slot."""

    sequence: tuple[str, int]
    options: Options
    n_prompt: int
    n_cached: int
    seed: int
    end: Finished | None = None


class SlotBook:
    """One page a slot, the last task's. Belongs to the event loop."""

    def __init__(self) -> None:
        self._pages: dict[int, Page] = {}

    def start(self, event: Started, options: Options) -> None:
        """A task began in a slot."""
        self._pages[event.id_slot] = Page(
            (event.request_id, event.index), options, event.n_prompt, event.n_cached, event.seed
        )

    def finish(self, event: Finished) -> None:
        """A slot's task ended by itself. One that had to go on in another slot leaves no trace there."""
        page = self._pages.get(event.id_slot)
        if page is not None and page.sequence == (event.request_id, event.index):
            page.end = event

    def page(self, id_slot: int) -> Page | None:
        """The last task of a slot; None where no task ran yet."""
        return self._pages.get(id_slot)
