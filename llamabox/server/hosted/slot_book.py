"""The server's memory of each slot's last task, for GET /slots: the worker knows counts, the server settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamabox.engine.events import Finished, Started, StopType
from llamabox.server.fields.request import Options


@dataclass(slots=True)
class Page:
    """The last task of one slot."""

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
        self._pages[event.id_slot] = Page(options, event.n_prompt, event.n_cached, event.seed)

    def finish(self, event: Finished) -> None:
        """A slot's task ended by itself."""
        page = self._pages.get(event.id_slot)
        if page is not None:
            page.end = event

    def page(self, id_slot: int) -> Page | None:
        """The last task of a slot; None where no task ran yet."""
        return self._pages.get(id_slot)


def next_token(page: Page | None, *, is_processing: bool, n_decoded: int) -> dict[str, Any]:
    """llama-server's counters with llama-box's stop flags beside them. An idle slot has 0 and -1."""
    end = page.end if page is not None and not is_processing else None
    n_predict = page.options.params.n_predict if page is not None and is_processing else -1
    return {
        "has_next_token": is_processing,
        "has_new_line": end is not None and end.has_new_line,
        "n_remain": n_predict - n_decoded if n_predict >= 0 else -1,
        "n_decoded": n_decoded if is_processing else 0,
        "stopped_eos": end is not None and end.stop_type is StopType.EOS,
        "stopped_word": end is not None and end.stop_type is StopType.WORD,
        "stopped_limit": end is not None and end.stop_type is StopType.LIMIT,
        "stopping_word": "" if end is None else end.stopping_word,
    }
