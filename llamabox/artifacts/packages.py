"""pip, asked for files of the user's package index, so that the index, proxy and certificates set up for it hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder

MISSING = f'pip is not installed for {sys.executable}: run "python -m ensurepip", or "uv pip install pip" with uv'


def pip_is_there() -> bool:
    """Environments that uv makes have none unless something that is installed in them requires it.

    `importlib.util.find_spec` would ask setuptools' finder as well, which on seeing "pip" takes distutils away from
    this process: a build by setuptools could not go on.
    """
    return PathFinder.find_spec("pip") is not None


def pip_download(options: Sequence[str]) -> list[str]:
    """The command that downloads what `options` name, without what it depends on."""
    return [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", *options]


def hashed(requirement: str, sha256: str) -> str:
    """A line of a requirements file: with --require-hashes pip compares the file's hash before it opens it."""
    return f"{requirement} --hash=sha256:{sha256}\n"


def reason(said: str, status: int) -> str:
    """The line of pip's output that says why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "DO NOT MATCH THE HASHES" in said:
        found = next((line.split()[-1] for line in lines if line.startswith("Got ")), "another")
        return f"what the index has is not the file that is expected here: its SHA-256 is {found}"
    # Behind "ERROR: Exception:" comes a traceback, and what happened is its last line.
    errors = [line for line in lines if line.lower().startswith("error") and line != "ERROR: Exception:"]
    return errors[-1] if errors else lines[-1] if lines else f"it ended with status {status}"
