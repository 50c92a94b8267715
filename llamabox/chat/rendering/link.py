"""The agreement between template.py and the process of sandbox.py: what a question may cost."""

from __future__ import annotations

MEMORY = 1 << 30
"""Bytes of address space of the process."""

CPU_SECONDS = 2.0
"""Processor time of the process for one call."""

PROBE_SECONDS = 1.0
"""Processor time for finding out what a template can take. It takes 15 ms; a slow one is then known only in part."""

CALL_MESSAGES = 200
"""Messages that CPU_SECONDS is for."""

MAX_SECONDS = 60.0
"""Processor time for the longest conversation."""


def seconds_for(n_messages: int, cpu_seconds: float) -> float:
    """Processor time for a conversation: a template that is quick enough for a few messages is so for many."""
    return min(MAX_SECONDS, cpu_seconds * max(1.0, n_messages / CALL_MESSAGES))
