"""What a process has that reads a stranger's template or grammar."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamabox.chat.template import ChatTemplate
from llamabox.quarantine import doors
from llamabox.workers.text.grammars.desk import GrammarTrial

ESCAPED = {
    "a file": "open('/etc/passwd')",
    "a connection": "import socket; socket.socket()",
    "a program": "import subprocess; subprocess.run(['/bin/true'])",
    "a program without pipes": "import os; sys.exit(not os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)[1])",
    "the terminal's input": "import fcntl; fcntl.ioctl(2, 0x5412, b'l')",  # TIOCSTI
    "the environment of the server": "import os; open(f'/proc/{os.getppid()}/environ')",
}


START = "import os, socket, subprocess, sys\nfrom llamabox.quarantine import doors\n"
REFUSED = ("Operation not permitted", "Too many open files")


def tried(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", ESCAPED)
def test_who_has_taken_it_over_opens_nothing(what: str) -> None:
    done = tried(f"assert doors.close_doors()\n{ESCAPED[what]}")
    assert done.returncode != 0, done
    assert any(reason in done.stderr for reason in REFUSED), done


@pytest.mark.parametrize("what", ["a file", "a connection", "a program", "the environment of the server"])
def test_where_the_kernel_cannot_be_asked_the_limit_holds(what: str) -> None:
    done = tried(f"doors.DENIED.clear()\nassert not doors.close_doors()\n{ESCAPED[what]}")
    assert "Too many open files" in done.stderr, done


def test_all_threads_are_held_and_new_ones_may_start() -> None:
    """One that ran before can open nothing either."""
    code = (
        "import threading\n"
        "closed, said = threading.Event(), []\n"
        "def work():\n"
        "    closed.wait()\n"
        "    try:\n        os.fork()\n"
        "    except OSError as error: said.append(error.errno)\n"
        "before = threading.Thread(target=work)\n"
        "before.start()\n"
        "assert doors.close_doors()\n"
        "closed.set()\n"
        "after = threading.Thread(target=work)\n"
        "after.start()\n"
        "before.join(), after.join()\n"
        "print(said, 'NoNewPrivs')"
    )
    done = tried(code)
    assert done.stdout == "[1, 1] NoNewPrivs\n", done


def test_the_environment_has_what_python_needs_and_no_key() -> None:
    given = {
        "LLAMA_API_KEY": "secret",
        "HOME": "/root",
        "TZ": "UTC",
        "LC_ALL": "C",
        "PYTHONPATH": "/x",
        "AWS_SECRET": "y",
    }
    assert doors.environment(given) == {"TZ": "UTC", "LC_ALL": "C", "PYTHONPATH": "/x"}


def limits_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3]


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_templates_and_grammars_are_tried_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all that Jinja and Python load late is there."""
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    late = ("[1] | random", "{} | pprint", "strftime_now('%d')", "'ä' | urlencode", "'ä'.encode('idna')")
    template = ChatTemplate("{{" + "}}, {{".join(late) + "}}", "", "")
    trial = GrammarTrial()
    before = children()
    try:
        assert template.render([{"role": "user", "content": "a"}]).endswith(", %C3%A4, b'xn--4ca'")
        assert trial.run("start: /a/") is None
        started = children() - before
        assert len(started) == 2
        for pid in started:
            status = Path(f"/proc/{pid}/status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status
            assert limits_of(pid) == "1"
            assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        template.close()
        trial.close()
