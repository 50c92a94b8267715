"""Runs the checks of one client, which is all that its environment holds: nothing of llamabox is imported here."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any

SCRIPTED, FREE = sys.argv[1:3] if len(sys.argv) > 2 else ("", "")
"""Addresses of the server that says what a script says, and of the one that does as it is asked."""

KEY = "none"
MODEL = "demo"
ONE, BOTH, THINK = "What is the weather in Paris?", "Tell me both.", "Now think."
REPORT = "Rain falls in Paris today."
INTRODUCTION = "I look."


def run(*checks: Callable[[], Any]) -> None:
    """A line for each check; the exit status is 1 where one failed."""
    n_failed = 0
    for check in checks:
        try:
            told = check()
            if inspect.iscoroutine(told):
                import asyncio

                asyncio.run(told)
            print(f"ok   {check.__name__.replace('_', ' ')}", flush=True)
        except Exception as error:
            n_failed += 1
            print(f"FAIL {check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(file=sys.stderr)
    sys.exit(1 if n_failed else 0)


def equal(found: Any, expected: Any) -> None:
    assert found == expected, f"{found!r} in place of {expected!r}"
