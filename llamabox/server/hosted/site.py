"""All that is behind one port: how it is listened on, and the model that answers."""

from __future__ import annotations

import time
from typing import Final, TypeVar

from starlette.requests import HTTPConnection

from llamabox.clients.state import WorkerState, unavailable
from llamabox.errors import Unavailable
from llamabox.server.hosted.model import Hosted
from llamabox.server.http.lifecycle import Lifecycle
from llamabox.server.http.request_body import BodyBudget
from llamabox.server.listening.config import ListenConfig

METRICS = "/metrics"

Kind = TypeVar("Kind", bound=Hosted)


class Site:
    """One for each app, made by create_app and reached through `site_of`. Belongs to the event loop."""

    def __init__(self, listen: ListenConfig, hosted: Hosted) -> None:
        self.listen: Final = listen
        self.hosted: Final = hosted
        self.lifecycle: Final = Lifecycle()
        self.bodies: Final = BodyBudget(max(listen.max_bodies, listen.max_body))
        self.started: Final = int(time.time())  # seconds since the epoch

    def serving(self, kind: type[Kind]) -> Kind:
        """The model, for a route whose need only models of this kind meet."""
        assert isinstance(self.hosted, kind)
        return self.hosted

    def refusal(self, path: str) -> Unavailable | None:
        """Why a request of this path, without the prefix, is not let in now; None where it is.

        Counters outlive a worker, and a restart is when somebody wants to see them; a job may wait for its end.
        """
        is_scrape = path == METRICS and self.hosted.client.info is not None
        if is_scrape:
            return None
        if self.lifecycle.stopping:
            return unavailable(WorkerState.STOPPED)
        trouble = self.hosted.unavailable()
        return None if trouble is not None and self.hosted.may_wait(path) else trouble


def site_of(connection: HTTPConnection) -> Site:
    """The typed way to `app.state.site`."""
    site = connection.app.state.site
    assert isinstance(site, Site)
    return site
