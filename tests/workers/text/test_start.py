"""The text worker's first moments (llamabox.workers.text.start)."""

from __future__ import annotations

import subprocess
import sys


def test_the_model_s_load_waits_for_no_slow_import() -> None:
    """numpy and llguidance take as long to be imported as a small model takes to be loaded."""
    slow = "{'numpy', 'llguidance', 'llamabox.engine.engine'} & set(sys.modules)"
    code = f"import sys, llamabox.workers.text.start; sys.exit(str({slow} or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
