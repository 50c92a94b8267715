"""Tasks whose end nobody waits for: none of them fails unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def spawn(
    work: Coroutine[Any, Any, None], what: str, failed: Callable[[Exception], None] = lambda error: None
) -> asyncio.Task[None]:
    """Run `work` in a task, which the caller keeps. An exception that leaves it is logged with its trace, then given to
    `failed`, which does what must follow.
    """

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            logger.error("%s failed", what, exc_info=error)
            failed(error)

    task = asyncio.create_task(work, name=what)
    task.add_done_callback(ended)
    return task
