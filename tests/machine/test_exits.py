from __future__ import annotations

import signal

import pytest

from llamabox.machine.exits import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0"),
        (-signal.SIGKILL, "was killed by SIGKILL (Killed)"),
        (-signal.SIGSEGV, "was killed by SIGSEGV (Segmentation fault)"),
        (-(signal.SIGRTMIN + 3), "was killed by signal 37"),
    ],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code).startswith(words)
