"""A process for test_trial.py, whose questions are what it shall do: `python -m tests.quarantine.answers`."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

from llamabox.quarantine import inside


class Answers:
    """Keeps its first question, which a greeting may be."""

    def __init__(self) -> None:
        self.first: bytes | None = None

    def answer(self, question: bytearray) -> bytes:
        words = bytes(question)
        self.first = self.first or words
        match words.split(b" ", 1):
            case [b"first"]:
                return self.first
            case [b"turn", rest]:
                return rest[::-1]
            case [b"long", size]:
                return b"x" * int(size)
            case [b"spin"]:
                while True:
                    pass
            case [b"sleep"]:
                time.sleep(60)
            case [b"take", size]:
                return str(len(bytearray(int(size)))).encode()
            case [b"crash"]:
                ctypes.string_at(0)
            case [b"fail"]:
                raise ValueError("asked to")
            case [b"exit", status]:
                os._exit(int(status))
            case [b"stack"]:
                return str(threading.stack_size()).encode()
            case [b"nice"]:
                return str(os.nice(0)).encode()
        return words


if __name__ == "__main__":
    inside.serve(sys.argv[1:], lambda: Answers().answer)
