"""What this process' C library does with large blocks of memory."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_MMAP_THRESHOLD = -3
"""mallopt's number, from glibc's malloc.h."""

LARGE = 1 << 20
"""Bytes."""


def map_large_blocks() -> None:
    """Give each block of `LARGE` bytes or more pages of its own: they grow without a copy and go back when freed.

    glibc raises its threshold to the largest block that was ever freed, up to 32 MiB. From then on such blocks lie side
    by side in the heap: one that grows between others is copied, and what it leaves is a hole. Sixteen bodies that come
    at once held 700 MiB for the 512 that they may.

    Does nothing where the user tunes malloc, or with another C library.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
