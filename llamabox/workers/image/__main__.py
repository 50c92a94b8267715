"""`python -m llamabox.workers.image FD`: the image worker over an inherited socket. Started by the supervisor."""

from __future__ import annotations

import logging
import os
import sys

from llamabox.workers.sigterm import block_sigterm, leave_group


def main(fd: int) -> int:
    leave_group()
    # Only then the rest, which imports numpy: its BLAS starts threads as it is imported, and they inherit the mask.
    block_sigterm()
    from llamabox.imaging.pipeline import Pipeline
    from llamabox.workers.image.process import run

    return run(fd, Pipeline.load)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    logging.shutdown()
    # Not sys.exit: the library's threads and the blocked reader have nothing left to do and must not hold up the end.
    os._exit(code)
