"""A chat template as the server uses it: chosen, checked, rendered in processes of its own.

Why a process: see sandbox.py. It costs a small child that sleeps between calls, and about 0.2 ms a call, in which the
event loop can do other things.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from llamabox.chat import builtin
from llamabox.chat.formats.form import PLAIN, Format
from llamabox.chat.markers import CutPrompt, cut_at_markers
from llamabox.chat.messages import Conversation
from llamabox.chat.rendering.capabilities import Capabilities
from llamabox.chat.rendering.link import CALL_MESSAGES, CPU_SECONDS, MEMORY, PROBE_SECONDS, seconds_for
from llamabox.errors import InvalidRequest, OptionsError, ServerFault, from_wire
from llamabox.quarantine.lane import Lane
from llamabox.quarantine.lines import pack
from llamabox.quarantine.trial import Death, Limits, Trial

MAX_NAME = 20
"""A longer `--chat-template` is the template's text, not a name."""

SANDBOX = "llamabox.chat.rendering.sandbox"
"""The module that a child runs."""

N_QUICK = 3
N_LONG = 1
"""Children for short conversations, and for large ones, which short ones must not wait behind."""


LONG_TEXT = 1 << 20
"""Characters of a conversation that is long, however few messages it has."""

LONG_NICENESS = 10
"""Seconds of rendering would else be felt by the streams."""


Wishes = Callable[[dict[str, Any]], dict[str, Any]]
"""Variables of a template that the fields of a body ask for."""


class TooLong(Exception):
    """A conversation has more bytes of text than the context has room for."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self.n_bytes = n_bytes


class HasMedia(Exception):
    """A conversation has pictures or sound, which no template's child is to carry to and fro."""


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation, whose messages stayed in the child, and its prompt."""

    conversation: Conversation
    prompt: str

    def cut(self) -> CutPrompt:
        """The prompt's texts and media. Raises InvalidRequest where the template lost or repeated one."""
        return cut_at_markers(self.prompt, self.conversation.marker, self.conversation.media)


class ChatTemplate:
    """Renders conversations with one Jinja template.

    Owned by the server process; thread-safe. All calls but `begin` block: use a worker thread. Children start when they
    are needed and are replaced after a call that had to be ended.
    """

    def __init__(
        self,
        source: str,
        bos_token: str,
        eos_token: str,
        *,
        add_bos: bool = False,
        form: Format | None = None,
        cpu_seconds: float = CPU_SECONDS,
    ) -> None:
        """`add_bos`: the tokenizer adds BOS itself, so one that the template writes first is dropped.

        `form` is how the model writes, where that is not to be found out.

        `cpu_seconds` is the processor time of a call with a few messages; see `seconds_for`.
        """
        self.source = source
        self._bos_token = bos_token
        self._add_bos = add_bos
        self._cpu_seconds = cpu_seconds
        self._hello = _Hello(source, bos_token, eos_token, form)
        limits = Limits(cpu_seconds=cpu_seconds, start_seconds=PROBE_SECONDS, memory=MEMORY)
        self.quick = Lane(SANDBOX, N_QUICK, limits, self._hello)
        self.long = Lane(SANDBOX, N_LONG, replace(limits, niceness=LONG_NICENESS), self._hello)
        self._finalizers = [weakref.finalize(self, lane.close) for lane in (self.quick, self.long)]

    def check(self) -> None:
        """Compile the template. Raises OptionsError where it can never render anything."""
        with self.quick.child() as child:
            answer = self._started(child)
        if "error" in answer:
            raise OptionsError(f"the chat template is not usable: {answer['message']}")

    def form(self) -> Format:
        """The form in which the template's model thinks and calls; PLAIN where the template cannot be used."""
        if self._hello.form is None:
            with self.quick.child() as child:
                self._started(child)
        return Format.from_wire(self._hello.form) if self._hello.form else PLAIN

    def capabilities(self) -> tuple[Capabilities, Capabilities] | None:
        """What the template can take, without tools and with some; None where it cannot be used."""
        if self._hello.can is None:
            with self.quick.child() as child:
                self._started(child)
        if self._hello.can is None:
            return None
        without, with_tools = (Capabilities(**forms) for forms in self._hello.can)
        return without, with_tools

    def warm(self) -> None:
        """Start a child, so that the first request does not wait for it. Failing is left to the requests."""
        with self.quick.child() as child:
            self._started(child)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continues: bool = False,
        in_thought: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text; where it `continues`, the last message is the assistant's and the text ends with it.

        With `in_thought` it ends with that message's thought.

        Raises InvalidRequest where the template refuses these messages, ServerFault where it misbehaves (time, memory,
        output, sandbox) or was broken from the start.
        """
        seconds = seconds_for(len(messages), self._cpu_seconds)
        call = _encode(
            {
                "messages": list(messages),
                "tools": None if tools is None else list(tools),
                "add_generation_prompt": add_generation_prompt,
                "continues": continues,
                "in_thought": in_thought,
                "extra": dict(extra or {}),
            }
        )
        with (self.long if is_long(messages) else self.quick).child() as child:
            return self._without_bos(self._answer(child, seconds, call)["text"])

    def begin(self, conversation: Conversation) -> asyncio.Task[bytearray | Death] | None:
        """Have a child that is ready render a short conversation, from an event loop; `finish` makes the prompt of it.

        The way over a thread takes as long as the template. None where no child is ready: call `render` on a thread.
        Raises InvalidRequest for messages that are not JSON.
        """
        if self._hello.can is None:  # no child has found the template usable
            return None
        call = _encode(question_of(conversation))
        child = self.quick.take_ready()
        if child is None:
            return None
        seconds = seconds_for(len(conversation.messages), self._cpu_seconds)
        if not child.put(call, seconds):
            self.quick.give_back(child)
            return None
        return asyncio.create_task(self._await(child, seconds))

    def finish(self, answer: bytearray | Death) -> str:
        """The prompt that the child of `begin` rendered. Raises as `render` does."""
        return self._without_bos(_checked(_decode(answer))["text"])

    def read(
        self, raw: bytes | bytearray, *, wishes: Wishes, most_bytes: int | None, api: str = "openai"
    ) -> tuple[dict[str, Any], RenderedChat]:
        """A chat's whole body, read in the child like its template: its other fields, its conversation and prompt.

        `wishes` makes further variables of the other fields. `most_bytes` bounds the text, TooLong is raised beyond.
        `api` says in whose words the body is (rendering/reading.py). Raises HasMedia; as `render` and
        `wishes` do; BodyTooLarge or InvalidRequest for a wrong body.
        """
        seconds = seconds_for(raw.count(b'"role"'), self._cpu_seconds)
        with self.long.child() as child:
            answer = self._answer(child, seconds, _encode({"most_bytes": most_bytes, "api": api}), raw)
            body = answer["body"]
            text = self._answer(child, seconds, _encode({"wishes": wishes(body)}))["text"]
        return body, RenderedChat(Conversation(**answer["conversation"]), self._without_bos(text))

    def close(self) -> None:
        """End the children. Idempotent; a later call would start another."""
        self.quick.close()
        self.long.close()

    def _answer(self, child: Trial, cpu_seconds: float, *question: bytes | bytearray) -> dict[str, Any]:
        answer = self._started(child)
        if "error" not in answer:
            answer = _decode(child.ask(*question, cpu_seconds=cpu_seconds))
        return _checked(answer)

    async def _await(self, child: Trial, cpu_seconds: float) -> bytearray | Death:
        """The answer to what was put to a child, which is then given back."""
        is_answered = False
        try:
            answer = await child.answer(cpu_seconds)
            is_answered = True
            return answer
        finally:
            if not is_answered:  # the event loop ends: nobody will read what it says
                child.abort()
                child.close()
            self.quick.give_back(child)

    def _without_bos(self, text: str) -> str:
        return text.removeprefix(self._bos_token) if self._add_bos and self._bos_token else text

    def _started(self, child: Trial) -> dict[str, Any]:
        """The child's verdict on the template: `{"text": ""}` or an error."""
        answer = _decode(child.start())
        self._hello.can = answer.get("can") or self._hello.can
        self._hello.form = answer.get("form") or self._hello.form
        return answer


class _Hello:
    """The question that names the template to a new child. Lanes hold it, who must not hold the ChatTemplate."""

    def __init__(self, source: str, bos_token: str, eos_token: str, form: Format | None) -> None:
        self._call = {"source": source, "bos_token": bos_token, "eos_token": eos_token}
        self.can: list[dict[str, Any]] | None = None  # the first child's findings about the template
        self.form: dict[str, Any] | None = form.to_wire() if form is not None else None

    def __call__(self) -> bytes:
        return _encode({**self._call, "can": self.can, "form": self.form})


def _encode(call: dict[str, Any]) -> bytes:
    try:
        return pack(call)
    except (TypeError, RecursionError) as error:
        raise InvalidRequest(f"messages: nested too deeply or not JSON: {error}", field="messages") from error


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, or what it says is wrong, raised."""
    match answer.get("error"):
        case None:
            return answer
        case "refused":
            raise InvalidRequest(
                f"the chat template cannot render these messages: {answer['message']}", field="messages"
            )
        case "long":
            raise TooLong(answer["n_bytes"])
        case "media":
            raise HasMedia
        case "request":
            raise from_wire(answer["reason"])
    raise ServerFault(f"the chat template failed: {answer['message']}")


def _decode(answer: bytearray | Death) -> dict[str, Any]:
    if isinstance(answer, Death):
        return {"error": "fault", "message": str(answer)}
    said: dict[str, Any] = orjson.loads(answer)
    return said


def is_long(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation takes so long that others should not wait behind it."""
    return len(messages) > CALL_MESSAGES or sum(len(message.get("content") or "") for message in messages) > LONG_TEXT


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
    """The whole prompt; a message that the answer continues stands last, in the assistant's opened turn. Blocks."""
    return template.render(**question_of(conversation))


def question_of(conversation: Conversation) -> dict[str, Any]:
    """What a child is told of a conversation."""
    return {
        "messages": conversation.messages,
        "tools": conversation.tools,
        "add_generation_prompt": conversation.add_generation_prompt,
        "continues": conversation.continues,
        "in_thought": conversation.in_thought,
        "extra": conversation.template_kwargs,
    }
