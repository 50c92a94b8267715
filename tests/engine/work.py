"""How much work a call is, counted: a test that compares counts holds on every machine, however slow or busy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def n_instructions(call: Callable[[], object]) -> int:
    """Instructions of Python that `call` runs in this thread. The inside of a function written in C counts nothing."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Callable[[FrameType, str, Any], Any]:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
