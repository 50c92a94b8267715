"""What the tests that run alone need, and what takes long to make: made while the others run.

A run of everything starts it at the beginning. It has of the processors what the tests leave, which is next to nothing
where both workers compute, and a core or two where they wait. A run of named files makes it where it is wanted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MODULE = "tests.e2e.command.own_prefix"
"""Makes it: a program that takes the folder to make it in."""


class Ahead:
    """A program that is at work in `folder`. Ends with close(), which takes the folder away."""

    def __init__(self, root: Path) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="llamabox-tests-ahead-"))
        self.folder = self._home / "made"
        self.folder.mkdir()
        self._log = self._home / "log"
        with self._log.open("wb") as out:
            # In the tests' session: what is idle gives way to its own session alone (sched_autogroup).
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(self.folder)],
                cwd=root,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))

    def wait(self) -> tuple[int, str]:
        """Until it has ended: its exit status, and what it said."""
        return self._process.wait(), self._log.read_text(errors="replace")

    def close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


AHEAD = pytest.StashKey[Ahead]()
"""Of the configuration of a run that has begun to make it."""


def begin(config: pytest.Config) -> None:
    """Begin to make it, where the whole suite is asked for."""
    option = config.option
    is_part = option.keyword or option.markexpr or option.deselect or getattr(option, "lf", False)
    if not is_part and config.rootpath.joinpath(*MODULE.split(".")).with_suffix(".py").is_file():
        config.stash[AHEAD] = ahead = Ahead(config.rootpath)
        config.add_cleanup(ahead.close)
