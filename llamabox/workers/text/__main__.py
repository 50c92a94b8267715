"""`python -m llamabox.workers.text FD`: the text worker over an inherited socket. Started by the supervisor."""

from __future__ import annotations

import logging
import os
import sys

from llamabox.workers.sigterm import block_sigterm, leave_group


def main(fd: int) -> int:
    leave_group()
    # Only then the rest: its threads, those of numpy's BLAS among them, inherit the mask.
    block_sigterm()
    from llamabox.workers.text.start import run

    return run(fd)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    logging.shutdown()
    # Not sys.exit: ggml's threads and the blocked reader have nothing left to do and must not hold up the end.
    os._exit(code)
