"""The side of a trial that answers: a process that can do nothing else, and that the kernel ends at its limits."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence

from llamabox.quarantine.doors import close_doors
from llamabox.quarantine.frames import ANSWER, QUESTION, receive, send

Answer = Callable[[bytearray], bytes]
"""From a question's bytes to those of the answer. An exception ends the process."""


def serve(words: Sequence[str], prepare: Callable[[], Answer]) -> None:
    """Answer questions until the other side closes the socket. `words` are the command's, as Trial gives them.

    `prepare` makes what answers. It is called before the doors close: what is imported later is not found.
    """
    descriptor, memory, stack, niceness = map(int, words)
    os.nice(niceness)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the side that asks gets them too, and closes the socket when it is done
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as peer:
        if not stack:
            _answer_all(peer, memory, prepare)
            return
        threading.stack_size(stack)
        thread = threading.Thread(target=_answer_all, args=(peer, memory, prepare))
        thread.start()
        thread.join()


def _answer_all(peer: socket.socket, memory: int, prepare: Callable[[], Answer]) -> None:
    answer = prepare()
    for kind, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS does not know all of them
            resource.setrlimit(kind, (allowed, allowed))
    close_doors()
    while (head := receive(peer, QUESTION.size)) is not None:
        cpu_seconds, length = QUESTION.unpack(head)
        question = receive(peer, length)
        if question is None:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        said = answer(question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        del question
        send(peer, ANSWER.pack(len(said)), said)
        del said
