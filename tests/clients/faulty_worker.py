"""The text worker as it is, but for one bug that nobody expected, in the thread that FAULT names.

The bug shows in the first life alone (FAKE_LIVES counts them), once a request holds the word of the test.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamabox.workers.sigterm import block_sigterm, leave_group

TRIGGER = "injected"


def breaks(owner: Any, name: str, *, when: Callable[[], bool] = lambda: True) -> None:
    """From now on the method fails where `when` says so."""
    works = getattr(owner, name)

    def broken(*arguments: Any, **named: Any) -> Any:
        if when():
            raise ZeroDivisionError("injected")
        return works(*arguments, **named)

    setattr(owner, name, broken)


def install(fault: str) -> None:
    from llamabox.engine.engine import Engine
    from llamabox.grammar.constraint import GuidedConstraint
    from llamabox.wire.signs.pulse import Pulse
    from llamabox.workers import sigterm
    from llamabox.workers.text.grammars.desk import GrammarDesk
    from llamabox.workers.text.reader import TextReader
    from llamabox.workers.text.slots.calls import SlotCalls

    seen = threading.Event()
    prepare = TextReader._prepare

    def look(reader: TextReader, message: Any) -> Callable[[], None]:
        if TRIGGER in str(message):
            seen.set()
        return prepare(reader, message)

    TextReader._prepare = look  # type: ignore[method-assign,assignment]
    match fault:
        case "channel reader" | "long texts":
            breaks(TextReader, "_prepare", when=lambda: threading.current_thread().name == fault)
        case "MainThread":
            breaks(Engine, "step", when=seen.is_set)
        case "masks":
            breaks(GuidedConstraint, "prepare", when=lambda: threading.current_thread().name.startswith(fault))
        case "grammars":
            breaks(GrammarDesk, "_serve")
        case "slot files":
            breaks(SlotCalls, "_write")
        case "pulse":
            breaks(Pulse, "stuck", when=seen.is_set)
        case "SIGTERM":
            breaks(sigterm, "StopAsked")
        case _:
            raise AssertionError(fault)


if __name__ == "__main__":
    leave_group()
    block_sigterm()
    from llamabox.workers.text.start import run

    with Path(os.environ["FAKE_LIVES"]).open("a+") as counter:
        counter.write("x")
        counter.flush()
        if counter.tell() == 1:
            install(os.environ["FAULT"])
    os._exit(run(int(sys.argv[1])))
