"""Children that look at a native library (llamabox/workers/doctor), and what they said before they ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamabox.errors import LlamaboxError, from_wire
from llamabox.machine.exits import describe_exit

SECONDS = 120.0
"""After which a child hangs. A GPU's driver may compile its kernels the first time."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a child told, by the names of its steps."""

    steps: Mapping[str, Mapping[str, Any]]
    ended_in: str | None = None  # the step in which the child ended; None: it came to its own end
    status: int = 0  # as subprocess has it
    stderr: Sequence[str] = field(default_factory=tuple)  # its last lines, where it did not

    def error(self, step: str) -> LlamaboxError | None:
        """Why a step failed; None where it did not, or was not reached."""
        found = self.steps.get(step, {})
        return from_wire(dict(found)) if "error" in found else None

    def done(self, step: str) -> Mapping[str, Any] | None:
        """What a step found; None where it failed or was not reached."""
        found = self.steps.get(step)
        return None if found is None or "error" in found else found

    @property
    def end(self) -> str:
        """How the child ended, in words, with the last line it wrote."""
        how = "did not end" if self.status == TIMED_OUT else describe_exit(self.status)
        return f"{how}: {self.stderr[-1]}" if self.stderr else how


TIMED_OUT = 10**6
"""`Told.status` of a child that was given up."""


def ask(library: str, prefix: str | None, files: Sequence[str] = (), seconds: float = SECONDS) -> Told:
    """Run a child for the library `text` or `images`."""
    command = [sys.executable, "-m", "llamabox.workers.doctor.examine", library, prefix or "", *files]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return Told({}, "its start", 1, (str(error.strerror or error),))
    try:
        out, err = process.communicate(timeout=seconds)
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        status = TIMED_OUT
    except BaseException:  # told to stop: nothing is left behind
        process.kill()
        process.wait()
        raise
    return read(out, err, status)


def read(out: bytes, err: bytes, status: int) -> Told:
    """The lines of a child that ended with `status`."""
    steps: dict[str, dict[str, Any]] = {}
    begun: str | None = "its start"
    for line in out.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            break  # cut off
        if "begin" in value:
            begun = value["begin"]
        else:
            steps[value.pop("step")] = value
            begun = None
    if status == 0:
        return Told(steps)
    lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    return Told(steps, begun or "its end", status, tuple(lines[-5:]))
