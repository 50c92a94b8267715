"""Whether the memory that a context's cells take as they are used will be there."""

from __future__ import annotations

import logging

from llamabox.machine import free_memory

logger = logging.getLogger(__name__)


def warn_if_scarce(n_bytes: int) -> None:
    """`n_bytes` are what cells have still to take. A system without them would kill the worker under a long prompt."""
    left = free_memory.available()
    if left is not None and n_bytes > left:
        logger.warning(
            "the context takes %.0f MiB more as it fills, and %.0f MiB are free: a smaller -c, or -ctk q8_0 -ctv q8_0, "
            "would keep the system from ending the worker then",
            n_bytes / 2**20,
            left / 2**20,
        )
