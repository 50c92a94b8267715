"""`python -m llamabox`."""

from __future__ import annotations

import sys

from llamabox.first_process import leave_burying_to_parent


def main() -> int:
    """The command. Returns the exit status."""
    leave_burying_to_parent()
    # Only now: what is imported may start threads, of which a child would have none.
    from llamabox.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
