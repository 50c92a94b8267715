"""What is printed, by real processes, on what standard input, output and error can be."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def llamabox(words: str, redirected: str = "", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run by a shell, which can close a descriptor."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m llamabox {words} {redirected}', sys.executable],
        env={**os.environ, **environ},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("words", ["--help", "bench --help"])
def test_help_on_a_terminal_of_ascii(words: str) -> None:
    done = llamabox(words, **ASCII)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"usage: llamabox" in done.stdout


@pytest.mark.parametrize("words", ["--help", "bench --help"])
@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", "| true"])
def test_help_that_nobody_gets_ends_without_a_trace(words: str, redirected: str) -> None:
    done = llamabox(words, redirected)
    assert done.stderr == b""
    assert done.returncode in (0, 1)
    if (words, redirected) == ("--help", ">/dev/full"):
        assert done.returncode == 1


def test_a_command_line_in_another_encoding(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/m\xffd\xe9l.gguf"
    for environ in ({}, ASCII):
        done = subprocess.run(
            [sys.executable, "-m", "llamabox", "-m", path, "--chat-template", "\u2026"],
            env={**os.environ, **environ}, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert done.stderr.startswith(b"error: there is no built-in chat template '"), "it is UTF-8 in any locale"
        assert done.stderr.count(b"\n") == 1
        assert done.stdout.startswith(b"llamabox -m ")


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", "| true"])
def test_the_first_line_may_be_lost(redirected: str) -> None:
    """A command that goes on beyond it: its one error says what is wrong with the model."""
    done = llamabox("-m /nowhere.gguf", redirected)
    assert done.stderr.decode() == "error: cannot read the model /nowhere.gguf: No such file or directory\n"


@pytest.mark.parametrize("log", ["", "--log-json"])
@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", ">/dev/full 2>&1", ">&- 2>&-"])
def test_errors_that_cannot_be_told_still_end_with_their_status(log: str, redirected: str) -> None:
    done = llamabox(f"-m /nowhere.gguf {log}", redirected)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("closed", [fds for n in (1, 2, 3) for fds in combinations((0, 1, 2), n)], ids=str)
def test_closed_descriptors_are_there_again(closed: tuple[int, ...]) -> None:
    """Else a socket or file would get the number of one of them."""
    script = (
        "import os, socket, sys; from llamabox.log.output import ensure_descriptors, say; ensure_descriptors();"
        "assert socket.socket().fileno() > 2; say('x', sys.stdout); say('x', sys.stderr);"
        "sys.exit(7 if all(os.get_inheritable(fd) for fd in (0, 1, 2)) else 1)"
    )
    closing = " ".join(f"{fd}>&-" for fd in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, script], capture_output=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == (b"" if 1 in closed else b"x\n")
