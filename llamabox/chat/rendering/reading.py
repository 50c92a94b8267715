"""A large chat's body, read beside its template: reading it in the server would hold up everybody there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llamabox.chat.anthropic.messages import read_conversation
from llamabox.chat.messages import Conversation, parse_messages
from llamabox.chat.rendering.capabilities import Capabilities
from llamabox.checks import parse_body

READERS: Mapping[str, Callable[[Mapping[str, Any]], Conversation]] = {
    "openai": parse_messages,
    "openai, without prefill": partial(parse_messages, prefills=False),
    "anthropic": read_conversation,
}
"""What makes a conversation of a body, by the API whose words it is in."""

WITHOUT_PREFILL = {"openai": "openai, without prefill"}
"""Who reads bodies where a last message of the assistant is not continued unless they say so."""

IN_THE_PROMPT = ("messages", "system", "tools", "functions", "chat_template_kwargs")
"""Fields that are done with once there is a prompt."""

ALWAYS_SHOWN = ("system", "developer", "user", "tool")
"""Roles whose text is in the prompt. An assistant's may hold a thought that is left out."""


def read_chat(raw: bytes | bytearray, api: str) -> tuple[dict[str, Any], Conversation]:
    """The other fields and the conversation; `api` is one of READERS. Raises BodyTooLarge or InvalidRequest."""
    body = parse_body(raw)
    conversation = READERS[api](body)
    return {name: value for name, value in body.items() if name not in IN_THE_PROMPT}, conversation


def shown_bytes(conversation: Conversation, can: Sequence[Capabilities]) -> int:
    """Bytes that the prompt will surely have, whatever the template does with white space, thoughts and tools."""
    if not can[bool(conversation.tools)].shows_all:
        return 0
    n_bytes = 0
    for message in conversation.messages:
        if message["role"] in ALWAYS_SHOWN:
            content = message["content"] or ""
            texts = [content] if isinstance(content, str) else [part["text"] for part in content]
            n_bytes += sum(len(text.strip().encode(errors="replace")) for text in texts)
    return n_bytes


def summary(conversation: Conversation) -> dict[str, Any]:
    """The conversation without its messages."""
    return {
        "messages": (),
        "continues": conversation.continues,
        "in_thought": conversation.in_thought,
        "add_generation_prompt": conversation.add_generation_prompt,
        "tools": conversation.tools,
        "inputs": conversation.inputs,
        "tool_choice": conversation.tool_choice,
        "tool_fields": conversation.tool_fields,
        "has_functions": conversation.has_functions,
        "template_kwargs": conversation.template_kwargs,
        "notes": conversation.notes,
    }
