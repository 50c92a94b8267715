"""The process that renders chat templates, which llamabox.quarantine runs.

A template is a program that comes with a model file. Jinja's sandbox keeps it from Python's internals, but not from
`'a' * 10**9`, `10**10**9` or a loop without an end, and no thread can be stopped while such an expression holds the
interpreter. A process can: the kernel ends it at its limits, and only the call that it was working on fails.

A question is a line of JSON and the bytes behind it (quarantine/lines.py). The first one names the template, with what
an earlier process found out about it or null. All are answered in JSON, with `{"text": …}` or `{"error": kind,
"message": …}`:

    {"source", "bos_token", "eos_token", "can", "form"}      → {"text": "", "can": [without tools, with], "form"}
    {"messages", "tools", "add_generation_prompt", "continues", "in_thought", "extra"}  → {"text": the prompt}
    {"most_bytes", "api"}      and a chat's body            → {"body": its other fields, "conversation"}
    {"wishes": further variables}                           → {"text": the prompt of that chat}

`continues`: the last message is the assistant's, and the prompt ends with its text, or `in_thought` with its thought.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from jinja2 import Template, TemplateSyntaxError
from jinja2.exceptions import SecurityError

from llamabox.chat.formats.detection.detect import detect
from llamabox.chat.formats.form import GENERIC, Format
from llamabox.chat.messages import Conversation
from llamabox.chat.rendering.adapt import adapt, adapt_tools
from llamabox.chat.rendering.capabilities import Capabilities, Message
from llamabox.chat.rendering.continuation import continued, with_thought_apart
from llamabox.chat.rendering.environment import Fixed, Refused, compile_template, now
from llamabox.chat.rendering.link import MEMORY, PROBE_SECONDS
from llamabox.chat.rendering.probe import NO_TOOLS, probe, tool_variables
from llamabox.chat.rendering.reading import read_chat, shown_bytes, summary
from llamabox.errors import LlamaboxError, to_wire
from llamabox.quarantine import inside
from llamabox.quarantine.lines import unpack

LATE = (
    *("_strptime", "jinja2.debug", "pprint", "random"),
    *(f"encodings.{name}" for name in ("ascii", "idna", "latin_1", "punycode", "raw_unicode_escape", "unicode_escape")),
)
"""Modules that Jinja and Python import when a template first needs them."""
MAX_OUTPUT = 32 << 20
"""Characters of one prompt; the longest contexts hold less."""


class Overflow(Exception):
    """The output is over MAX_OUTPUT."""


class Renderer:
    """One compiled template with what was found out about it."""

    def __init__(
        self,
        source: str,
        bos_token: str,
        eos_token: str,
        can: Sequence[Mapping[str, Any]] | None,
        form: Mapping[str, Any] | None = None,
    ) -> None:
        """`can` and `form` are what an earlier process found out."""
        self._template: Template = compile_template(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.kept: Conversation | None = None  # a body that was read and is to be rendered
        self._until = time.process_time() + PROBE_SECONDS
        self.can = [Capabilities(**forms) for forms in can] if can else self._probe()
        self.form = Format.from_wire(form) if form else detect(self._try_turn)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None,
        add_generation_prompt: bool,
        continues: bool,
        extra: Mapping[str, Any],
        in_thought: bool | None = None,
    ) -> str:
        """The prompt. Raises Refused, or whatever the template raises.

        Tools over which the template fails are told by the system: Hermes 2, for one, knows no lists of types.
        """
        tools = adapt_tools(tools or ())
        try:
            return self._shown(messages, tools, add_generation_prompt, continues, extra, in_thought)
        except (Refused, SecurityError, Overflow, MemoryError):
            raise
        except Exception:
            if not tools or self.can[True].tools == "told":
                raise
        can = replace(self.can[False], tools="told")
        variables = {**NO_TOOLS[can.no_tools], **extra}
        return self._prompt(messages, tools, add_generation_prompt, continues, variables, can, in_thought)

    def _shown(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        add_generation_prompt: bool,
        continues: bool,
        extra: Mapping[str, Any],
        in_thought: bool | None = None,
    ) -> str:
        """The prompt as the template shows it."""
        can = self.can[bool(tools)]
        variables = tool_variables(tools, can.no_tools) if tools else NO_TOOLS[can.no_tools]
        return self._prompt(messages, tools, add_generation_prompt, continues, {**variables, **extra}, can, in_thought)

    def _prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        add_generation_prompt: bool,
        continues: bool,
        variables: Mapping[str, Any],
        can: Capabilities,
        in_thought: bool | None,
    ) -> str:
        variables = {**now(), **variables}

        def told(messages: Sequence[Message], add_generation_prompt: bool) -> str:
            told = adapt(messages, can, tools=tools, form=self.form)
            return self._render(told, {**variables, "add_generation_prompt": add_generation_prompt})

        if not continues:
            return told(messages, add_generation_prompt)
        return continued(messages, told, in_thought=in_thought)

    def _probe(self) -> list[Capabilities]:
        return [probe(self._try, with_tools=with_tools) for with_tools in (False, True)]

    def _try(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str | None:
        if time.process_time() > self._until:
            return None
        try:
            return self._render(messages, {**now(), "add_generation_prompt": True, **variables})
        except Exception:
            return None

    def _try_turn(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, add_generation_prompt: bool
    ) -> str | None:
        """What `detect` asks for."""
        if time.process_time() > self._until:
            return None
        told = [dict(tool) for tool in tools or ()]
        try:
            self.form = GENERIC  # until it is known
            return self._shown(messages, adapt_tools(told), add_generation_prompt, False, {})
        except Exception:
            return None

    def _render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        room = MAX_OUTPUT
        for piece in self._template.generate({**self._tokens, **variables, "messages": Fixed(messages)}):
            room -= len(piece)
            if room < 0:
                raise Overflow
            pieces.append(piece)
        return "".join(pieces)


class Desk:
    """Answers questions, the first of which brings the template."""

    def __init__(self) -> None:
        for late in LATE:
            importlib.import_module(late)
        self._renderer: Renderer | None = None

    def answer(self, question: bytearray) -> bytes:
        try:
            call, body = unpack(question)
            if self._renderer is None:
                self._renderer = Renderer(**call)
                found = {"can": self._renderer.can, "form": self._renderer.form.to_wire()}
                return orjson.dumps({"text": "", **found})
            return orjson.dumps(_answer(self._renderer, call, body))
        except Exception as error:
            return orjson.dumps(_describe(error))


def _answer(renderer: Renderer, call: dict[str, Any], raw: bytearray) -> dict[str, Any]:
    kept, renderer.kept = renderer.kept, None
    if "wishes" in call:
        assert kept is not None, "no body came before"
        extra = {**call["wishes"], **kept.template_kwargs}
        text = renderer.render(
            kept.messages, kept.tools, kept.add_generation_prompt, kept.continues, extra, kept.in_thought
        )
        return {"text": _sendable(text)}
    if "most_bytes" not in call:
        return {"text": _sendable(renderer.render(**call))}
    del kept
    try:
        body, conversation = read_chat(raw, call["api"])
        conversation = with_thought_apart(conversation, renderer.form)
    except LlamaboxError as error:
        return {"error": "request", "reason": to_wire(error)}
    if conversation.media:
        return {"error": "media"}
    n_bytes = shown_bytes(conversation, renderer.can)
    if call["most_bytes"] is not None and n_bytes > call["most_bytes"]:
        return {"error": "long", "n_bytes": n_bytes}
    renderer.kept = conversation
    return {"body": body, "conversation": summary(conversation)}


def _sendable(text: str) -> str:
    """A surrogate without its other half is nothing that could be sent or tokenised."""
    return text.encode(errors="replace").decode()


def _describe(error: Exception) -> dict[str, str]:
    """`syntax`: never renders. `refused`: not these messages. `fault`: the template misbehaves."""
    if isinstance(error, TemplateSyntaxError):
        return {"error": "syntax", "message": f"line {error.lineno}: {error.message}"}
    if isinstance(error, Refused):
        return {"error": "refused", "message": str(error.message or "no reason given")[:1000]}
    if isinstance(error, SecurityError):
        return {"error": "fault", "message": f"it tried to leave its sandbox: {str(error)[:200]}"}
    if isinstance(error, MemoryError):
        return {"error": "fault", "message": f"it needed more than {MEMORY >> 20} MiB of memory"}
    if isinstance(error, Overflow):
        return {"error": "fault", "message": f"its text is longer than {MAX_OUTPUT} characters"}
    if isinstance(error, RecursionError):
        return {"error": "fault", "message": "it calls itself without end"}
    return {"error": "refused", "message": f"{type(error).__name__}: {str(error)[:1000]}"}


if __name__ == "__main__":
    inside.serve(sys.argv[1:], lambda: Desk().answer)
