"""`llamabox lookup-build`: makes a static lookup cache (-lcs) out of texts."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

DESCRIPTION = (
    "Count which token follows each pair of tokens in texts like those that a model will write, for -lcs: where it "
    "drafts by counted n-grams, these say what is usual. The file has the format of llama.cpp's lookup tools."
)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    arguments = parser().parse_args(argv)
    command = [sys.executable, "-m", "llamabox.workers.text.drafting.lookup_build"]
    command += [arguments.model, arguments.lookup_cache_static, arguments.native, *arguments.texts]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    found = argparse.ArgumentParser(prog="llamabox lookup-build", description=DESCRIPTION)
    add = found.add_argument
    add("-m", "--model", required=True, help="GGUF file of the model, for its tokens", metavar="FILE")
    add("-lcs", "--lookup-cache-static", required=True, help="the file to write", metavar="FILE")
    add("--native", default="", help="where the native libraries are, if not inside the package", metavar="DIR")
    add("texts", nargs="+", help="files of text", metavar="TEXT")
    return found
