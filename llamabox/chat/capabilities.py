"""What a chat template can take, found by trying it; and messages brought into a form that it can.

Templates do not say whether they know a system role, content in parts, or tool calls. Trying costs a handful of renders
of one or two short messages, once per template. Pure; runs where the template runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Render = Callable[[Sequence[Message], Sequence[dict[str, Any]] | None], str | None]
"""(messages, tools) → the text, or None where the template raised."""

MARK = "mark-7f3a"
CALL = "probe_7f3a"
TOOL = {
    "type": "function",
    "function": {
        "name": CALL,
        "description": "d",
        "parameters": {"type": "object", "properties": {"k": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the template was seen to do."""

    text: bool  # content as a string is rendered
    parts: bool  # content as a list of parts is rendered
    system_role: bool
    developer_role: bool
    tool_calls: bool
    object_arguments: bool  # tool call arguments as an object, not as JSON text
    null_content: bool  # a tool-calling message may have None for content
    tool_role: bool


def probe(render: Render, source: str) -> Capabilities:
    """Try the template. `source` is only searched for a role that no harmless message would show."""
    user: Message = {"role": "user", "content": MARK}
    with_object = render([user, _call({"k": MARK})], [TOOL]) or ""
    with_text = render([user, _call(json.dumps({"k": MARK}))], [TOOL]) or ""
    takes_object = CALL in with_object and MARK in with_object.split(CALL, 1)[1] and "{'k'" not in with_object
    takes_text = CALL in with_text
    arguments: object = {"k": MARK} if takes_object else json.dumps({"k": MARK})
    with_null = render([user, _call(arguments, content=None)], [TOOL])
    answer = {"role": "tool", "tool_call_id": "call00001", "name": CALL, "content": "answer-7f3a"}
    parts = render([{"role": "user", "content": [{"type": "text", "text": MARK}]}], None) or ""
    return Capabilities(
        text=MARK in (render([user], None) or ""),
        # A template that only prints its content prints the list as Python does, quotes and all.
        parts=MARK in parts and "'type'" not in parts and '"type"' not in parts,
        system_role="rule-7f3a" in (render([{"role": "system", "content": "rule-7f3a"}, user], None) or ""),
        developer_role="developer" in source,
        tool_calls=takes_object or takes_text,
        object_arguments=takes_object,
        null_content=with_null is not None and "None" not in with_null,
        tool_role="answer-7f3a" in (render([user, _call(arguments), answer], [TOOL]) or ""),
    )


def _call(arguments: object, content: str | None = "") -> Message:
    call = {"id": "call00001", "type": "function", "function": {"name": CALL, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def adapt(messages: Sequence[Message], can: Capabilities) -> list[Message]:
    """The same conversation in words that the template understands. The input is not changed."""
    adapted = [_adapt_one(message, can) for message in messages]
    if not can.system_role:
        adapted = _merge_system(adapted)
    for message in adapted:
        _adapt_content(message, can)
    return adapted


def _adapt_one(message: Message, can: Capabilities) -> Message:
    message = dict(message)
    if message["role"] == "developer" and not can.developer_role:
        message["role"] = "system"
    if message.get("tool_calls"):
        _adapt_calls(message, can)
    elif message["content"] is None:
        message["content"] = ""
    if message["role"] in ("tool", "function") and not can.tool_role:
        message["role"] = "user"
        response = {
            "name": message.get("name"),
            "tool_call_id": message.get("tool_call_id"),
            "content": _text(message["content"]),
        }
        known = {key: value for key, value in response.items() if value is not None}
        message["content"] = json.dumps({"tool_response": known}, ensure_ascii=False)
    return message


def _adapt_calls(message: Message, can: Capabilities) -> None:
    if not can.tool_calls:
        calls = [
            {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            for call in message.pop("tool_calls")
        ]
        text = _text(message["content"])
        message["content"] = (text + "\n" if text else "") + json.dumps({"tool_calls": calls}, ensure_ascii=False)
        return
    if message["content"] is None and not can.null_content:
        message["content"] = ""
    if not can.object_arguments:
        message["tool_calls"] = [_with_text_arguments(call) for call in message["tool_calls"]]


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _merge_system(messages: list[Message]) -> list[Message]:
    """System text goes before the next other message, as the models without that role were trained."""
    merged: list[Message] = []
    pending = ""
    for message in messages:
        if message["role"] == "system":
            pending += ("\n" if pending else "") + _text(message["content"])
            continue
        if pending and message["role"] == "user":
            message = {**message, "content": f"{pending}\n{_text(message['content'])}"}
            pending = ""
        merged.append(message)
    if pending:
        merged.append({"role": "user", "content": pending})
    return merged


def _adapt_content(message: Message, can: Capabilities) -> None:
    content = message["content"]
    if isinstance(content, list) and not can.parts:
        message["content"] = _text(content)
    elif isinstance(content, str) and can.parts and not can.text:
        message["content"] = [{"type": "text", "text": content}]


def _text(content: object) -> str:
    """Content as one string; parts are joined with a newline."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content if isinstance(content, str) else ""
