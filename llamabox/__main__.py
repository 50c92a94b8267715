"""`python -m llamabox`."""

from __future__ import annotations

import sys

from llamabox.cli import main

if __name__ == "__main__":
    sys.exit(main())
