"""A chat template as the server uses it: chosen, checked, rendered in a process of its own.

Why a process: see sandbox.py. It costs one small child that sleeps between calls, and about 0.2 ms a call.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llamabox.chat import builtin
from llamabox.chat.link import CPU_SECONDS, LENGTH, receive
from llamabox.chat.messages import Conversation
from llamabox.errors import InvalidRequest, OptionsError, ServerFault

WALL_SECONDS = 30.0
"""The child is given up after this much silence, whatever it does; its own limits come first."""

MAX_NAME = 20
"""A longer `--chat-template` is the template's text, not a name (contract 1.4)."""


class ChatTemplate:
    """Renders conversations with one Jinja template.

    Owned by the server process; thread-safe, calls run one after another. All calls block: use a worker thread. The
    child starts with the first call and is replaced after a call that had to be ended.
    """

    def __init__(
        self,
        source: str,
        bos_token: str,
        eos_token: str,
        *,
        add_bos: bool = False,
        cpu_seconds: float = CPU_SECONDS,
    ) -> None:
        """`add_bos`: the tokenizer adds BOS itself, so one that the template writes first is dropped.

        `cpu_seconds` is the processor time of one call.
        """
        self.source = source
        self._bos_token = bos_token
        self._eos_token = eos_token
        self._add_bos = add_bos
        self._lock = threading.Lock()
        self._child = _Child(cpu_seconds)
        self._finalizer = weakref.finalize(self, self._child.stop)

    def check(self) -> None:
        """Compile the template. Raises OptionsError where it can never render anything."""
        with self._lock:
            answer = self._ensure_started()
        if "error" in answer:
            raise OptionsError(f"the chat template is not usable: {answer['message']}")

    def warm(self) -> None:
        """Start the child, so that the first request does not wait for it. Failing is left to the requests."""
        with self._lock:
            self._ensure_started()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text.

        Raises InvalidRequest where the template refuses these messages, ServerFault where it misbehaves (time, memory,
        output, sandbox) or was broken from the start.
        """
        frame = _encode(
            {
                "messages": list(messages),
                "tools": None if tools is None else list(tools),
                "add_generation_prompt": add_generation_prompt,
                "extra": dict(extra or {}),
            }
        )
        with self._lock:
            answer = self._ensure_started()
            if "error" not in answer:
                answer = self._child.ask(frame)
        kind = answer.get("error")
        if kind == "refused":
            raise InvalidRequest(
                f"the chat template cannot render these messages: {answer['message']}", field="messages"
            )
        if kind is not None:
            raise ServerFault(f"the chat template failed: {answer['message']}")
        text: str = answer["text"]
        if self._add_bos and self._bos_token:
            text = text.removeprefix(self._bos_token)
        return text

    def close(self) -> None:
        """End the child. Idempotent; a later call would start another."""
        with self._lock:
            self._child.stop()

    def _ensure_started(self) -> dict[str, str]:
        """The child's verdict on the template: `{"text": ""}` or an error. The lock is held."""
        self._child.notice_death()
        if self._child.greeting is None:
            self._child.start()
            greeting = _encode({"source": self.source, "bos_token": self._bos_token, "eos_token": self._eos_token})
            answer = self._child.ask(greeting)
            if self._child.is_running:
                self._child.greeting = answer
            return answer
        return self._child.greeting


class _Child:
    """The process and its socket. Not thread-safe: ChatTemplate's lock is held in every call."""

    def __init__(self, cpu_seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self.greeting: dict[str, str] | None = None  # what it said about the template; None: not running
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(WALL_SECONDS)
        with theirs:
            command = [sys.executable, "-m", "llamabox.chat.sandbox", str(theirs.fileno()), str(self._cpu_seconds)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        self._socket = ours

    def ask(self, frame: bytes) -> dict[str, str]:
        """One answer. A child that does not give it is ended; the answer is then an error."""
        assert self._socket is not None
        try:
            self._socket.sendall(frame)
            reply = receive(self._socket)
        except OSError:
            reply = None
        if reply is None:
            return {"error": "fault", "message": self._reason(self.stop())}
        answer: dict[str, str] = orjson.loads(reply)
        return answer

    def notice_death(self) -> None:
        """Forget a child that somebody ended while it slept: no call is to blame for that."""
        if self._process is not None and self._process.poll() is not None:
            self.stop()

    def stop(self) -> int | None:
        """End it and collect it. Returns its exit status, as subprocess counts it."""
        process, self._process, self.greeting = self._process, None, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Closing the socket ends an idle child, and one that was ended by its limits is already gone.
            return process.wait(timeout=0.5)
        process.kill()
        return process.wait()

    def _reason(self, status: int | None) -> str:
        if status == -signal.SIGPROF:
            return f"it ran for more than {self._cpu_seconds:g} s"
        return f"its process ended with status {status}"


def _encode(value: object) -> bytes:
    try:
        body = orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise InvalidRequest(f"messages: nested too deeply or not JSON: {error}", field="messages") from error
    return LENGTH.pack(len(body)) + body


def resolve_template(option: str | None, model_template: str | None) -> str:
    """The Jinja source to use: the user's (a built-in name or a text), else the model's, else ChatML.

    Raises OptionsError for a short text that is no built-in name.
    """
    if not option:
        return model_template or builtin.template("chatml")
    if len(option) > MAX_NAME:
        return option
    name = option.strip().lower()
    if name not in builtin.NAMES:
        raise OptionsError(f"there is no built-in chat template {option!r}; there are: {', '.join(builtin.NAMES)}")
    return builtin.template(name)


def render_chat(template: ChatTemplate, conversation: Conversation) -> str:
    """The whole prompt; a message that is to be continued stands last, in the assistant's opened turn. Blocks."""
    text = template.render(
        conversation.messages,
        add_generation_prompt=conversation.add_generation_prompt,
        tools=conversation.tools,
        extra=conversation.template_kwargs,
    )
    return text + (conversation.prefill or "")
