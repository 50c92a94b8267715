"""The items of an answer while it comes: what each is as an object, and the events that open, fill and close it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llamabox.server.api.openai.responses.thoughts import sealed
from llamabox.server.api.openai.responses.tools import OfferedTool

Event = dict[str, Any]
"""An event of the stream without its place in it: `sequence_number` and `output_index`."""


def new_id(prefix: str) -> str:
    """An id that no other object has."""
    return f"{prefix}_{secrets.token_hex(24)}"


class OutputItem(Protocol):
    """One item. Its text comes in pieces; `status` is as OpenAI has it."""

    id: str
    status: str

    @property
    def delta_type(self) -> str:
        """The type of the events with pieces of its text."""

    @property
    def place(self) -> dict[str, Any]:
        """What these events say of where the piece belongs, beside the item."""

    def add(self, piece: str) -> None:
        """More of its text."""

    def opening(self) -> list[Event]:
        """Behind `output_item.added`, before the first piece."""

    def closing(self) -> list[Event]:
        """Behind the last piece, before `output_item.done`."""

    def object(self) -> dict[str, Any]:
        """The item as it is now."""


@dataclass(slots=True)
class Message:
    """What is said to the user."""

    id: str = field(default_factory=lambda: new_id("msg"))
    status: str = "in_progress"
    delta_type: str = "response.output_text.delta"
    place: dict[str, Any] = field(default_factory=lambda: {"content_index": 0})
    logprobs: list[Any] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def opening(self) -> list[Event]:
        return [{"type": "response.content_part.added", **self.place, "part": self._part("", [])}]

    def closing(self) -> list[Event]:
        text = "".join(self._pieces)
        return [
            {"type": "response.output_text.done", **self.place, "text": text, "logprobs": self.logprobs},
            {"type": "response.content_part.done", **self.place, "part": self._part(text, self.logprobs)},
        ]

    def object(self) -> dict[str, Any]:
        is_open = self.status == "in_progress"
        content = [] if is_open else [self._part("".join(self._pieces), self.logprobs)]
        return {"id": self.id, "type": "message", "status": self.status, "role": "assistant", "content": content}

    def _part(self, text: str, logprobs: Sequence[Any]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


@dataclass(slots=True)
class Thought:
    """What the model thinks: its text, or a summary that is the text itself where the client asked for one."""

    is_summary: bool
    is_sealed: bool  # its object has `encrypted_content`
    id: str = field(default_factory=lambda: new_id("rs"))
    status: str = "in_progress"
    _pieces: list[str] = field(default_factory=list)

    @property
    def delta_type(self) -> str:
        return "response.reasoning_summary_text.delta" if self.is_summary else "response.reasoning_text.delta"

    @property
    def place(self) -> dict[str, Any]:
        return {"summary_index" if self.is_summary else "content_index": 0}

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def opening(self) -> list[Event]:
        kind = "response.reasoning_summary_part.added" if self.is_summary else "response.content_part.added"
        return [{"type": kind, **self.place, "part": self._part("")}]

    def closing(self) -> list[Event]:
        text = "".join(self._pieces)
        told, part = "response.reasoning_text.done", "response.content_part.done"
        if self.is_summary:
            told, part = "response.reasoning_summary_text.done", "response.reasoning_summary_part.done"
        return [{"type": told, **self.place, "text": text}, {"type": part, **self.place, "part": self._part(text)}]

    def object(self) -> dict[str, Any]:
        text = "".join(self._pieces)
        parts = [] if self.status == "in_progress" else [self._part(text)]
        summary, content = (parts, []) if self.is_summary else ([], parts)
        item = {"id": self.id, "type": "reasoning", "summary": summary, "content": content, "status": self.status}
        return {**item, "encrypted_content": sealed(text)} if self.is_sealed else item

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "summary_text" if self.is_summary else "reasoning_text", "text": text}


@dataclass(slots=True)
class ToolCall:
    """A call of a tool: of a function with its arguments as JSON, or of a custom tool with its input as it is."""

    call_id: str
    tool: OfferedTool
    is_custom: bool
    id: str = ""
    status: str = "in_progress"
    place: dict[str, Any] = field(default_factory=dict)
    _pieces: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = self.id or new_id("ctc" if self.is_custom else "fc")

    @property
    def delta_type(self) -> str:
        return f"{self._told}.delta"

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def opening(self) -> list[Event]:
        return []

    def closing(self) -> list[Event]:
        name = {} if self.is_custom else {"name": self.tool.name}
        return [{"type": f"{self._told}.done", **name, **self._text()}]

    def object(self) -> dict[str, Any]:
        kind = "custom_tool_call" if self.is_custom else "function_call"
        item = {"id": self.id, "type": kind, "status": self.status, "call_id": self.call_id, "name": self.tool.name}
        space = {"namespace": self.tool.namespace} if self.tool.namespace else {}
        return {**item, **self._text(), **space}

    @property
    def _told(self) -> str:
        return f"response.{'custom_tool_call_input' if self.is_custom else 'function_call_arguments'}"

    def _text(self) -> dict[str, str]:
        return {"input" if self.is_custom else "arguments": "".join(self._pieces)}
