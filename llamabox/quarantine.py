"""What a process gets that reads what strangers wrote: chat templates, grammars. Should one of them take the process
over, it finds no key in the environment and cannot open a file, a connection or another program."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping

KEPT = ("PYTHON", "LD_LIBRARY_PATH", "DYLD_", "LANG", "LC_", "TZ")
"""How the variables begin that Python itself needs, and those for its texts and its clock."""


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For the process that is to be started."""
    return {name: value for name, value in environ.items() if name.startswith(KEPT)}


def close_doors() -> None:
    """From now on this process opens nothing. What is open stays so; what is imported later is not found."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
