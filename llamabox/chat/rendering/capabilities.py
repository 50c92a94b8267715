"""What a chat template can take: the form in which each part of a conversation reaches its text.

Templates do not say whether they know a system role, content in parts, or tool calls. probe.py finds it out by trying.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The form to use for each part. The first one named is a part as the client sent it. One for chats with tools and
    one for those without: templates have a way for each."""

    shows_all: bool = False  # texts of system, user and tools are in the prompt, however long they are
    tools: str = "shown"  # "told": the list of tools is told in a message of the system's
    no_tools: str = "none"  # `tools` is None where there are none; "absent", "empty"; "text": as text in `functions`
    user_content: str = "given"  # "given", "text" or "parts"; the same for the other roles
    assistant_content: str = "given"
    system_content: str = "given"
    tool_content: str = "given"
    turns: str = "given"  # "merged": one message for several of the user's, or of the assistant's, in a row
    system: str = (
        "anywhere"  # "leading", "first" (the leading ones merged) or "nowhere"; others go before a user's text
    )
    developer: str = "own"  # "system": that role instead
    calls: str = "object"  # the arguments are an "object" or "text"; "words": calls are told in the content
    results: str = "tool"  # "user": a tool's answer is told by the user
    raw_arguments: str = "given"  # "wrapped": text that is no object becomes one with that text in it
    silence: str = "null"  # "empty" or "absent": content of a message that only calls
    beside_calls: str = "one"  # content and calls: "one" message, "two", "bridged" by the user's; or in "words"
    parallel: str = "one"  # "split": one call a message, each with its result behind it
    thought: str = "reasoning_content"  # the field that holds it; "part": a part of the content
    thought_beside: str = "one"  # "two": a thought with content and calls is two messages
    ids: str = "given"  # "nine": nine letters and digits
    stray_results: str = "tool"  # "user": answers to no call
