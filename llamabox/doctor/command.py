"""The command: `llamabox doctor [--json] [the server's options]`.

0   all well, warnings apart
1   something does not work
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from llamabox.doctor.examination import examine
from llamabox.doctor.findings import as_json, as_text, exit_status
from llamabox.doctor.system import System
from llamabox.log.output import say

HELP = """\
usage: llamabox doctor [--json] [the server's options]

Look at what was built and what is here: libraries, processor, devices, memory, limits, folders, files, address; let
each device compute a made model and compare what it writes. Nothing is fetched and nothing is changed. Each finding is
"ok", a WARNING (it works, slower or less than it could) or a PROBLEM (it does not work), with what to do about it.

Give it the options and the environment that the server is to have: its model, port and devices are looked at then.

  --json      write one JSON object in place of lines
  -h, --help  print this text and exit

Exit status: 0 where all is well, warnings apart; 1 where there is a problem."""


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ, system: System | None = None) -> int:
    """Print what is found. Returns the exit status."""
    if not {"-h", "--help", "--usage"}.isdisjoint(argv):
        return 0 if say(HELP, sys.stdout) else 1
    options = [word for word in argv if word != "--json"]
    findings = list(examine(options, environ, system or System()))
    report = as_json(findings) if len(options) < len(argv) else as_text(findings)
    return exit_status(findings) if say(report, sys.stdout) else 1
