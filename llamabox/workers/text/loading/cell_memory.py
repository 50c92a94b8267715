"""A warning where memory will not suffice for a context's cells, which take it as they are used."""

from __future__ import annotations

import logging

from llamabox.machine import free_memory

logger = logging.getLogger(__name__)


def warn_if_scarce(n_bytes: int) -> None:
    """Warn where `n_bytes`, which cells have still to take, are not free: a long prompt would kill the worker."""
    left = free_memory.available()
    if left is not None and n_bytes > left:
        logger.warning(
            "the context takes %.0f MiB more as it fills, and %.0f MiB are free: a smaller -c, or -ctk q8_0 -ctv q8_0, "
            "would keep the system from ending the worker then",
            n_bytes / 2**20,
            left / 2**20,
        )
