"""`system` and `messages` of Anthropic's Messages API, as a conversation.

A user's message may hold what tools answered: these become messages of their own, before what the user says. Messages
of one role in a row are one. Blocks of tools that Anthropic's servers ran say nothing to other models and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamabox.chat.anthropic.blocks import Piece, content_of, objects, pieces_of, shown, texts_of
from llamabox.chat.anthropic.signatures import signed
from llamabox.chat.anthropic.tools import read_choice, read_tools
from llamabox.chat.markers import Markers, joined
from llamabox.chat.messages import Conversation, given_messages
from llamabox.checks import boolean, describe, mapping, one_of, present, string, wrong

ROLES = ("user", "assistant", "system")

BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n*")
"""Begins the system prompt of Claude Code. It differs in each request, so no prompt would begin as the last one did."""

CALL_PREFIX = "toolu_"
"""Begins the id of a call in this API; the rest is the id that the template sees."""


@dataclass(slots=True)
class Turn:
    """A message while its blocks are read."""

    role: str
    pieces: list[Piece] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    call_id: str = ""
    name: str = ""

    def message(self) -> dict[str, Any]:
        """The message in the form of chat/messages.py."""
        message: dict[str, Any] = {"role": self.role, "content": content_of(self.pieces) if self.pieces else ""}
        if self.calls:
            message["tool_calls"] = self.calls
            message["content"] = message["content"] or None
        if self.role == "tool":
            message["tool_call_id"] = self.call_id
        if self.name:
            message["name"] = self.name
        if self.thoughts:
            message["reasoning_content"] = "\n\n".join(self.thoughts)
        return message


class Reader:
    """Reads the messages of one request."""

    def __init__(self) -> None:
        self.markers = Markers()
        self.turns: list[Turn] = []
        self.wants_citations = False
        self._called: dict[str, str] = {}  # names of the tools that were called, by the ids of the calls

    def system(self, value: object) -> None:
        """`system`: what stands before all messages."""
        texts = texts_of(value, "system")
        if texts and (header := BILLING.match(texts[0])):
            texts[0] = texts[0][header.end() :]
        pieces = [(text, False) for text in texts if text]
        if pieces:
            self.turns.append(Turn("system", pieces))

    def message(self, value: object, where: str) -> None:
        """One of `messages`."""
        message = present(mapping(where, value))
        role = one_of(f"{where}.role", message.get("role"), ROLES)
        if "content" not in message:
            raise wrong(f"{where}.content", "is required: a string or an array of content blocks")
        content, where = message["content"], f"{where}.content"
        if role == "system":
            self.turns.append(Turn("system", [(text, False) for text in texts_of(content, where)]))
        elif role == "user":
            self._user(content, where)
        else:
            self._assistant(content, where)

    def _turn(self, role: str) -> Turn:
        """The last turn where it is that role's, else a new one."""
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(Turn(role))
        return self.turns[-1]

    def _user(self, content: object, where: str) -> None:
        blocks = objects(content, where)
        results = [one for one in blocks if one[1]["type"] == "tool_result"]
        for at, block in results:
            self._result(block, at)
        if len(results) < len(blocks) or not blocks:
            turn = self._turn("user")
            for at, block in blocks:
                if block["type"] != "tool_result" and not _is_a_servers(block):
                    self.wants_citations |= _wants_citations(block, at)
                    turn.pieces += shown(block, at, self.markers)

    def _result(self, block: Mapping[str, Any], where: str) -> None:
        given = string(f"{where}.tool_use_id", block.get("tool_use_id"))
        pieces = pieces_of(block.get("content", ""), f"{where}.content", self.markers)
        failed = block.get("is_error", False)
        if not isinstance(failed, bool):
            raise wrong(f"{where}.is_error", f"must be true or false, not {describe(failed)}")
        if failed and "error" not in joined(pieces)[:32].lower():  # a template has no other place for it
            pieces = [("Error:", False), *pieces] if len(pieces) > 1 else [(f"Error: {joined(pieces)}", False)]
        turn = Turn("tool", pieces, call_id=given.removeprefix(CALL_PREFIX), name=self._called.get(given, ""))
        self.turns.append(turn)

    def _assistant(self, content: object, where: str) -> None:
        turn = self._turn("assistant")
        for at, block in objects(content, where):
            match block["type"]:
                case "thinking":
                    thought = string(f"{at}.thinking", block.get("thinking", ""))
                    thought = thought or signed(string(f"{at}.signature", block.get("signature", "")))
                    turn.thoughts += [thought] if thought else []
                case "redacted_thinking":  # of another server's model
                    continue
                case "tool_use":
                    turn.calls.append(self._call(block, at))
                case "tool_result":
                    raise wrong(at, "a tool_result stands in a message of the user's")
                case _ if not _is_a_servers(block):
                    turn.pieces += [piece for piece in shown(block, at, self.markers) if piece[0]]

    def _call(self, block: Mapping[str, Any], where: str) -> dict[str, Any]:
        call_id = string(f"{where}.id", block.get("id"))
        name = string(f"{where}.name", block.get("name"))
        arguments = mapping(f"{where}.input", block.get("input", {}))
        self._called[call_id] = name
        return {
            "type": "function",
            "id": call_id.removeprefix(CALL_PREFIX),
            "function": {"name": name, "arguments": arguments},
        }


def _is_a_servers(block: Mapping[str, Any]) -> bool:
    """Whether a block tells of a tool that Anthropic's servers ran."""
    kind = block["type"]
    return kind in ("server_tool_use", "mcp_tool_use") or (kind.endswith("_tool_result") and kind != "tool_result")


def _wants_citations(block: Mapping[str, Any], where: str) -> bool:
    citations = present(mapping(f"{where}.citations", block.get("citations") or {}))
    return boolean(f"{where}.citations.enabled", citations.get("enabled", False))


def read_conversation(body: Mapping[str, Any]) -> Conversation:
    """The conversation in a request body. Raises InvalidRequest naming the field; a JSON null counts as absent."""
    body = present(body)
    given = given_messages(body)
    reader = Reader()
    if "system" in body:
        reader.system(body["system"])
    for i, value in enumerate(given):
        reader.message(value, f"messages[{i}]")
    messages = [turn.message() for turn in reader.turns]
    last = reader.turns[-1] if reader.turns else Turn("")
    continues = last.role == "assistant" and not last.calls
    if continues:
        messages[-1]["content"] = "".join(text for text, _ in last.pieces)
    tools = read_tools(body)
    choice = read_choice(body, [tool["function"]["name"] for tool in tools.tools])
    return Conversation(
        messages=tuple(messages),
        continues=continues,
        tools=None if choice == "none" else tools.tools or None,
        tool_choice=choice,
        tool_fields=tools.fields,
        notes=(
            *(f"the tool {one} is run by Anthropic's servers alone" for one in tools.left_out),
            *_notes(body, reader),
        ),
        media=tuple(reader.markers.sources),
        marker=reader.markers.random,
    )


def _notes(body: Mapping[str, Any], reader: Reader) -> list[str]:
    """What the request wishes for and will not get, though it is answered."""
    notes = []
    if reader.wants_citations:
        notes.append("answers cite no documents here")
    if present(mapping("context_management", body.get("context_management", {}))).get("edits"):
        notes.append("context_management edits nothing here: the whole conversation is in the prompt")
    return notes
