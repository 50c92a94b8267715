"""An answer whose start is given: the prompt ends amid the assistant's last message. Pure; runs where templates run.

The start cannot be put behind the generation prompt: that may open a thought, or stop before a channel is named. So the
message is rendered like one of the history, and the text is cut behind what was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llamabox.chat.formats.form import Format
from llamabox.chat.messages import Conversation
from llamabox.chat.rendering.adapt import text_of
from llamabox.chat.rendering.capabilities import Message
from llamabox.chat.rendering.environment import Refused

END = "e7f3aend"
"""Stands behind the given text, for templates trim a content, and the same text may come again."""

FILLER = "f7f3a"
"""A text that is cut off again."""

OPEN_THOUGHT = re.compile(r"[<\[|][^</\[|]*think[^/]*[>\]]\s*$", re.IGNORECASE)

Told = Callable[[Sequence[Message], bool], str]
"""(messages, add_generation_prompt) → the text."""


BEGUN = "begun"
"""Key of a message that is continued: the beginning of its thought as the client wrote it into the content."""


def with_thought_apart(conversation: Conversation, form: Format) -> Conversation:
    """Where the answer's start is a thought that has begun in its content, as the model begins one, it becomes one."""
    if not conversation.continues:
        return conversation
    *before, last = conversation.messages
    content = text_of(last["content"])
    if conversation.in_thought is None and (content or last.get("reasoning_content")):
        conversation = replace(conversation, in_thought=not content)
    opening = form.thought.open.strip() if form.thought is not None else ""
    if not opening or conversation.in_thought:
        return conversation
    said = content.lstrip().removeprefix(opening)
    assert form.thought is not None
    if said == content.lstrip() or form.thought.close.strip() in said or last.get("reasoning_content"):
        return conversation
    thinking = {**last, "content": "", "reasoning_content": said.removeprefix("\n"), BEGUN: content}
    return replace(conversation, messages=(*before, thinking), in_thought=True)


def continued(messages: Sequence[Message], told: Told, *, in_thought: bool | None) -> str:
    """The text up to the end of the last message's content, or of its thought.

    Raises Refused where the template has no place for the thought, and what `told` raises.
    """
    *before, last = messages
    last = dict(last)
    begun = last.pop(BEGUN, None)
    is_thought = in_thought is True
    given = str(last.get("reasoning_content") or "") if is_thought else text_of(last["content"])
    if is_thought and not given:
        return _opened(told(before, True), given, begun)
    found: list[str] = []
    for ending in _endings(last, given, is_thought):
        try:
            text = told([*before, *ending], False)
        except Exception:
            continue
        cut = text.rfind(END)
        if cut < 0 or not text[:cut].rstrip().endswith(given.strip()[-64:]):
            continue
        found.append(text[:cut])
        if is_thought or not OPEN_THOUGHT.search(found[-1].rstrip().removesuffix(given.strip())):
            return found[-1]
    if found:
        return found[0]
    text = told(before, True)
    return _opened(text, given, begun) if is_thought else text + given


def _opened(text: str, thought: str, begun: str | None) -> str:
    """A thought behind a prompt. Raises Refused where that opens none, and the client has not done so either."""
    if OPEN_THOUGHT.search(text):
        return text + thought
    if begun is None:
        raise Refused("the last message has a thought and no content, but the template has no place for a thought")
    return text + begun


def _endings(last: Message, given: str, is_thought: bool) -> Iterator[list[Message]]:
    """What may stand behind the other messages so that the given text appears. A template may show it in the history
    only, and a thought before a call only."""
    more = {"role": "user", "content": FILLER}
    if not is_thought:
        message = {**last, "content": given + END}
        yield from ([message], [message, more])
        return
    call = {"id": "call00001", "type": "function", "function": {"name": FILLER, "arguments": {}}}
    thinking = {**last, "reasoning_content": given + END}
    for message in (
        {**thinking, "content": FILLER},
        {**thinking, "content": ""},
        {**thinking, "content": None, "tool_calls": [call]},
    ):
        yield from ([message], [message, more])
