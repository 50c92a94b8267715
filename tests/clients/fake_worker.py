"""A worker process without a model: real process, real socket, and it does what it is told.

`TextConfig.model` is the script of its lives, comma separated, the last word standing for all later ones:

    fine         loads; answers
    refuse       LoadFailed, exit 1
    exit         exits with code 3 while loading
    SIGxxx       kills itself with that signal while loading
    stall        says that it has loaded half, and then no more
    hang         loads; obeys neither Shutdown nor SIGTERM
    slow         takes ten times the limit for silence to load
    stopped      is stopped while it loads, as by SIGSTOP
    deaf         loads; then never reads again

Lives are counted in the file that FAKE_LIVES names. A request's prompt is a command, see `Worker.submit`.
FAKE_NO_DEATHSIG leaves the end of file as the only sign of the server's death.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from llamabox.engine.events import (
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    PrefillStart,
    Started,
    StopType,
    Timings,
)
from llamabox.errors import InvalidRequest, ModelLoadError, to_wire
from llamabox.wire.common import LoadFailed, Loading, Shutdown, StopAsked
from llamabox.wire.questions import Layout, LayOutInfill, Tokens
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Abort, Call, Configure, Ready, Reply, Step, Submit, SubmitAll
from llamabox.wire.text_config import ModelInfo
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.orphan import die_with_parent
from llamabox.workers.sigterm import leave_group

INFO = ModelInfo(
    path="fake.gguf",
    n_ctx=256,
    n_ctx_total=1024,
    n_slots=4,
    n_ctx_train=2048,
    n_vocab=100,
    n_embd=8,
    n_params=1000,
    size=4000,
    vocab_type=2,
    ftype="F16",
    description="fake",
    chat_template=None,
    bos_token="<s>",
    eos_token="</s>",
    add_bos=True,
    context_shift=True,
    build="b-fake",
    longest_piece=8,
    eog_tokens=[2],
)


def forever() -> NoReturn:
    while True:
        signal.pause()


def die(name: str) -> NoReturn:
    os.kill(os.getpid(), signal.Signals[name])
    forever()


def started(request_id: str, index: int = 0) -> Started:
    return Started(request_id, index, id_slot=0, n_prompt=3, n_cached=1, seed=7)


def delta(request_id: str, text: str, index: int = 0) -> Delta:
    return Delta(request_id, index, text, [1], Timings(predicted_n=1))


def finished(request_id: str, index: int = 0) -> Finished:
    return Finished(
        request_id,
        index,
        FinishReason.STOP,
        StopType.EOS,
        stopping_word="",
        truncated=False,
        has_new_line=False,
        n_prompt=3,
        n_resident=5,
        id_slot=0,
        seed=7,
        timings=Timings(predicted_n=1),
    )


class Worker:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.channel = WorkerEnd.from_fd(fd)
        self.aborted: list[str] = []
        self.held_calls: list[Call] = []
        self.script = "fine"
        self.life = 0

    def run(self) -> None:
        configure = self.channel.receive()
        assert isinstance(configure, Configure)
        self.limit = configure.config.hang_timeout
        self.pulse = Pulse(self.channel, self.limit)
        self.pulse.start()
        self.load(configure.config.model.split(","))
        while (message := self.channel.receive()) is not None:
            match message:
                case Submit():
                    self.submit(message)
                case SubmitAll():
                    for submit in message.submits:
                        self.submit(submit)
                case Abort():
                    self.aborted.append(message.request_id)
                case Call():
                    self.call(message)
                case Shutdown():
                    if self.script != "hang":
                        self.channel.close()
                        return

    def load(self, lives: list[str]) -> None:
        with Path(os.environ["FAKE_LIVES"]).open("a+") as counter:
            counter.write("x")
            counter.flush()
            self.life = counter.tell()
        self.script = lives[min(self.life, len(lives)) - 1]
        self.channel.send(Loading(0.5))
        match self.script:
            case "refuse":
                self.channel.send(LoadFailed(to_wire(ModelLoadError("fake.gguf is no model"))))
                self.channel.close()
                sys.exit(1)
            case "exit":
                self.channel.close()
                sys.exit(3)
            case "stall":
                forever()
            case "slow":
                time.sleep(3 * self.limit)
            case "stopped":
                die("SIGSTOP")
            case "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case script if script.startswith("SIG"):
                die(script)
        self.channel.send(Ready(INFO))
        if self.script == "deaf":
            forever()

    def submit(self, submit: Submit) -> None:
        """echo WORD.. · each N (in n sequences) · hold · flood N · fail · die SIGxxx · garbage · block · clutch

        block calls C and never returns; clutch keeps the interpreter's lock meanwhile.

        later WORD.. is an echo from the second life on, and before that a prompt that is never through.
        """
        key = submit.request_id
        assert isinstance(submit.prompt[0], str)
        command, *words = submit.prompt[0].split()
        match command:
            case "echo":
                indices = range(submit.params.n)
                events: list[Event] = [started(key, index) for index in indices]
                events += [delta(key, word, index) for word in words for index in indices]
                events += [finished(key, index) for index in indices]
                self.channel.send(Step(events))
            case "later":
                if self.life == 1:
                    self.channel.send(Step([PrefillStart(key, 0, 8, 0)]))
                else:
                    self.channel.send(Step([started(key), *(delta(key, word) for word in words), finished(key)]))
            case "hold":
                self.channel.send(Step([started(key)]))
            case "flood":
                for i in range(int(words[0])):
                    self.channel.send(Step([delta(key, str(i))]))
                self.channel.send(Step([finished(key)]))
            case "fail":
                error = InvalidRequest("no such token", field="logit_bias")
                self.channel.send(Step([started(key), delta(key, "a"), Failed(key, 0, to_wire(error))]))
            case "die":
                die(words[0])
            case "block":
                with self.pulse.work("a step"):
                    ctypes.CDLL(None).pause()
            case "clutch":
                ctypes.PyDLL(None).pause()
            case "garbage":
                os.write(self.fd, b"\xff" * 64)

    def call(self, call: Call) -> None:
        question = call.question
        assert isinstance(question, LayOutInfill)
        echo = Layout([question.n_predict], question.suffix)
        match question.prefix:
            case "echo":
                self.channel.send(Reply(call.call_id, echo))
            case "aborted":
                self.channel.send(Reply(call.call_id, Layout([], " ".join(self.aborted))))
            case "mistake":
                self.channel.send(Reply(call.call_id, Tokens([1])))
            case "hold":
                self.held_calls.append(call)
            case "release":  # answers in the opposite order
                for held in [call, *reversed(self.held_calls)]:
                    assert isinstance(held.question, LayOutInfill)
                    self.channel.send(Reply(held.call_id, Layout([held.question.n_predict], held.question.suffix)))
            case "ask to stop":
                self.channel.send(StopAsked())
                self.channel.send(Reply(call.call_id, echo))
            case "late":  # what crosses an Abort: events of a request that ended
                self.channel.send(Step([delta(question.suffix, "late")]))
                self.channel.send(Reply(call.call_id, echo))
            case _:
                self.channel.send(Reply(call.call_id, error=to_wire(InvalidRequest("no such call", field="method"))))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    leave_group()
    if "FAKE_NO_DEATHSIG" not in os.environ:
        die_with_parent()
    PR_SET_PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY)
    assert threading.active_count() == 1
    Worker(int(sys.argv[1])).run()
