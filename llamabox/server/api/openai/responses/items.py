"""The items of `input`, as the messages of a conversation. Pure.

The items of one turn of the assistant, its thought, what it said and what it called, become one message, as templates
know it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamabox.chat.custom import as_function_call
from llamabox.chat.markers import Markers
from llamabox.checks import describe, mapping, one_of, present, string, wrong
from llamabox.server.api.openai.responses.parts import content_of
from llamabox.server.api.openai.responses.thoughts import unsealed

Item = Mapping[str, Any]

REFERENCE = "item_reference"
COMPACTION = "compaction"

SUMMARY = "Summary of the conversation so far:\n\n"
"""Stands before the summary in a compaction, which the model reads as a message of the user's: templates take system
messages at the beginning alone."""

ROLES = ("user", "assistant", "system", "developer")

HOSTED = re.compile(
    r"(web_search|file_search|image_generation|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call"
    r"(_output)?|tool_search_output|mcp_\w+|compaction\w*|program(_output)?|additional_tools"
)
"""Types of items of tools that OpenAI runs itself, and of its own bookkeeping. This server has no place for them."""

NAMESPACED = "__"
"""Stands between a namespace and a tool's name in the name that the model sees."""


def visible_name(name: str, namespace: str | None) -> str:
    """A tool's name as the model sees it."""
    return f"{namespace}{NAMESPACED}{name}" if namespace else name


class Transcript:
    """Collects the messages of one conversation, item by item. `dropped` has the types of those left out."""

    def __init__(self, find: Callable[[str], Item | None] = lambda item_id: None) -> None:
        """`find` has the items that others may refer to, by id."""
        self._find = find
        self.messages: list[dict[str, Any]] = []
        self.items: list[Item] = []  # those that were read, in the place of references what these refer to
        self.markers = Markers()
        self.dropped: set[str] = set()
        self._turn: dict[str, Any] | None = None  # the assistant's message that further items may belong to

    def say(self, role: str, text: str) -> None:
        """Add a message without parts."""
        self._add({"role": role, "content": text})

    def read(self, value: Any, where: str) -> None:
        """Add `input`: a text of the user's, or items. Raises InvalidRequest naming the item's field."""
        if isinstance(value, str):
            value = [{"type": "message", "role": "user", "content": value}]
        if not isinstance(value, list):
            raise wrong(where, f"must be a string or an array of items, not {describe(value)}")
        for i, item in enumerate(value):
            self.add(present(mapping(f"{where}[{i}]", item)), f"{where}[{i}]")

    def add(self, item: Item, where: str = "") -> None:
        """Add an item, which has no nulls. Raises InvalidRequest naming its field."""
        kind = item.get("type", "message" if "role" in item else REFERENCE if "id" in item else None)
        if kind == REFERENCE:
            item_id = string(f"{where}.id", item.get("id"))
            found = self._find(item_id)
            if found is None:
                raise wrong(f"{where}.id", f"there is no item {item_id[:80]!r} in any response that is stored")
            self.add(found, where)
            return
        self.items.append(item)
        read = READERS.get(kind) if isinstance(kind, str) else None
        if read is not None:
            read(self, item, where)
        elif isinstance(kind, str) and HOSTED.fullmatch(kind):
            self.dropped.add(kind)
        else:
            known = ", ".join([*READERS, REFERENCE])
            raise wrong(f"{where}.type", f"must be one of {known}, not {describe(kind)}")

    def _message(self, item: Item, where: str) -> None:
        role = one_of(f"{where}.role", item.get("role"), ROLES)
        content = content_of(item.get("content"), f"{where}.content", self.markers)
        if role != "assistant":
            self._add({"role": role, "content": content})
        elif self._turn is not None and self._turn["content"] is None:
            self._turn["content"] = content
        else:
            self._begin_turn(content)

    def _function_call(self, item: Item, where: str) -> None:
        arguments = string(f"{where}.arguments", item.get("arguments", ""))
        self._call(item, where, arguments if arguments.strip() else {})

    def _custom_call(self, item: Item, where: str) -> None:
        self._call(item, where, as_function_call(item, where)["arguments"])

    def _call(self, item: Item, where: str, arguments: object) -> None:
        name = string(f"{where}.name", item.get("name"))
        namespace = item.get("namespace")
        if namespace is not None:
            name = visible_name(name, string(f"{where}.namespace", namespace))
        call_id = string(f"{where}.call_id", item.get("call_id", ""))
        turn = self._turn or self._begin_turn(None)
        function = {"name": name, "arguments": arguments}
        turn.setdefault("tool_calls", []).append({"type": "function", "id": call_id, "function": function})

    def _output(self, item: Item, where: str) -> None:
        call_id = string(f"{where}.call_id", item.get("call_id", ""))
        content = content_of(item.get("output"), f"{where}.output", self.markers)
        self._add({"role": "tool", "tool_call_id": call_id, "content": content})

    def _reasoning(self, item: Item, where: str) -> None:
        thought = thought_of(item, where)
        if not thought:
            return
        if self._turn is None or self._turn["content"] is not None or "tool_calls" in self._turn:
            self._begin_turn(None)
        assert self._turn is not None
        before = self._turn.get("reasoning_content")
        self._turn["reasoning_content"] = f"{before}\n\n{thought}" if before else thought

    def _compaction(self, item: Item, where: str) -> None:
        summary = unsealed(string(f"{where}.encrypted_content", item.get("encrypted_content")))
        if summary:
            self._add({"role": "user", "content": SUMMARY + summary})
        else:  # another server's
            self.dropped.add(COMPACTION)

    def _begin_turn(self, content: object) -> dict[str, Any]:
        self._turn = {"role": "assistant", "content": content}
        self.messages.append(self._turn)
        return self._turn

    def _add(self, message: dict[str, Any]) -> None:
        self._turn = None
        self.messages.append(message)


def thought_of(item: Item, where: str) -> str:
    """The text of a reasoning item: its content, what this server sealed, or its summary; empty where none is there."""
    content = _texts(item.get("content", []), f"{where}.content")
    if content:
        return content
    encrypted = item.get("encrypted_content")
    if encrypted is not None and (thought := unsealed(string(f"{where}.encrypted_content", encrypted))):
        return thought
    return _texts(item.get("summary", []), f"{where}.summary")


def _texts(value: object, where: str) -> str:
    if not isinstance(value, list):
        raise wrong(where, f"must be an array of parts with text, not {describe(value)}")
    parts: Sequence[Item] = [mapping(f"{where}[{i}]", part) for i, part in enumerate(value)]
    return "\n\n".join(string(f"{where}[{i}].text", part.get("text")) for i, part in enumerate(parts))


READERS: dict[str, Callable[[Transcript, Item, str], None]] = {
    "message": Transcript._message,
    "function_call": Transcript._function_call,
    "function_call_output": Transcript._output,
    "custom_tool_call": Transcript._custom_call,
    "custom_tool_call_output": Transcript._output,
    "reasoning": Transcript._reasoning,
    COMPACTION: Transcript._compaction,
}
"""Who reads an item of a type."""
