"""Finds the form in which a model writes thoughts and calls from what its template renders. Pure; runs where it runs.

Some conversations are rendered whose names, keys and values stand nowhere else. What stands between them is the form.
So it is found from the texts that the model was trained on, not from the template's source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamabox.chat.formats.detection.calls import detect_calls
from llamabox.chat.formats.detection.edges import TAG, common_end, common_start, first_tag, from_last_tag
from llamabox.chat.formats.detection.marks import ARGUMENTS, IDS, KEY, NAME, NUMBER_KEY, OTHER, SAY, THINK, USER
from llamabox.chat.formats.form import (
    GENERIC,
    BracedCalls,
    Calls,
    Channels,
    Format,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
    Thought,
)

Message = dict[str, Any]
Render = Callable[[Sequence[Message], Sequence[Mapping[str, Any]] | None, bool], str | None]
"""(messages, tools, add_generation_prompt) → the text, or None where the template raised."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": {
                    KEY: {"type": "string", "description": "d"},
                    NUMBER_KEY: {"type": "integer", "description": "d"},
                },
                "required": [],
            },
        },
    }
    for name in (NAME, OTHER)
]

THOUGHT_TAG = re.compile(r"<\|open\|>think<\|sep\|>|[<\[]\|?/?[\w:]*(?:think|thought)[\w:]*\|?[>\]]", re.IGNORECASE)
AROUND = re.compile(rf"(?:{TAG.pattern})\w*")
"""A tag around texts that says nothing, with the word that belongs to it."""

PYTHON_CALLS = PythonCalls(section_open="<|tool_call_start|>", section_close="<|tool_call_end|>", separator=", ")
TOLD: dict[str, Calls] = {
    "<tool_call>": JsonCalls(open="<tool_call>\n", close="\n</tool_call>", separator="\n"),
    "<TOOLCALL>": JsonCalls(section_open="<TOOLCALL>", section_close="</TOOLCALL>", separator=", ", is_array=True),
    "<|tool_list_start|>": PYTHON_CALLS,
    "List of tools: [": PYTHON_CALLS,
    "<|tool_call|>": JsonCalls(section_open="<|tool_call|>", separator=", ", is_array=True),
}
"""Forms that templates without calls in their histories tell the model of, by a word of theirs."""

NAMES: dict[type, str] = {
    JsonCalls: "json",
    NamedCalls: "name-json",
    TaggedCalls: "tags",
    PythonCalls: "python",
    BracedCalls: "braces",
}


@dataclass(frozen=True, slots=True)
class Renders:
    """What the template renders behind the user's text."""

    prompt: str  # up to where the model goes on
    say: str
    think: str  # a thought and a text
    one: str  # a call
    two: str  # that call and another
    all: str  # a thought, a text and a call
    whole: str  # the whole prompt: tools are told in it

    @property
    def behind_text(self) -> str:
        """What ends a turn."""
        return self.say.partition(SAY)[2]


def detect(render: Render) -> Format:
    """The form of a template's model. Never fails: where none can be told it is GENERIC."""
    try:
        return _detect(_renders(render))
    except (ValueError, IndexError):
        return GENERIC


def _renders(render: Render) -> Renders:
    user = {"role": "user", "content": USER}

    def behind(*messages: Message, adds: bool = False) -> str:
        text = render([user, *messages], TOOLS, adds) or ""
        return text.rpartition(USER)[2] if USER in text else ""

    return Renders(
        prompt=behind(adds=True),
        say=behind(_message(SAY)),
        think=behind(_message(SAY, thought=THINK)),
        one=behind(_message(None, NAME)),
        two=behind(_message(None, NAME, OTHER)),
        all=behind(_message(SAY, NAME, thought=THINK)),
        whole=render([user], TOOLS, True) or "",
    )


def _message(content: str | None, *names: str, thought: str = "") -> Message:
    message: Message = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    if names:
        arguments = {NAME: ARGUMENTS, OTHER: {}}
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments[name]}}
            for name, call_id in zip(names, IDS, strict=False)
        ]
    return message


def _detect(texts: Renders) -> Format:
    start = _start(texts)
    if (channels := _channels(texts, start)) is not None:
        return channels
    thought, skipped = _thought(texts, start)
    calls = detect_calls(*(_body(text, start, texts, thought, skipped) for text in (texts.one, texts.two)))
    if calls is None or calls == GENERIC.calls:
        calls = next((form for word, form in TOLD.items() if word in texts.whole), GENERIC.calls)
    if isinstance(calls, NamedCalls) and not calls.open and start.endswith(calls.separator):
        # The prompt has begun the name already; text is told to a name of its own.
        skipped = (*skipped, calls.separator + texts.say[len(start) : texts.say.index(SAY)].strip())
        calls = replace(calls, open=calls.separator, separator="")
    return Format(
        name=_name(calls), thought=thought, calls=calls, skipped=skipped, before_calls=_before_calls(texts, calls)
    )


def _name(calls: Calls | None) -> str:
    if calls == GENERIC.calls:
        return GENERIC.name
    return NAMES[type(calls)] + ("-array" if isinstance(calls, JsonCalls) and calls.is_array else "")


def _start(texts: Renders) -> str:
    """What begins every turn of the assistant's."""
    places = ((texts.say, SAY), (texts.think, SAY), (texts.think, THINK), (texts.one, NAME))
    start = common_start([text[: text.index(mark)] for text, mark in places if mark in text])
    last = [found for found in THOUGHT_TAG.finditer(start) if not start[found.end() :].strip()]
    return start[: last[0].start()] if last else start


def _body(text: str, start: str, texts: Renders, thought: Thought | None, skipped: Sequence[str]) -> str:
    """What an assistant's turn has, without its beginning, its end, an empty thought, and what is around no text."""
    body = text.removeprefix(start)
    end = common_end(body, texts.behind_text) if texts.behind_text.strip() else ""
    body = body.removesuffix(end)
    if thought is not None:
        opening, close = re.escape(thought.open.strip()), re.escape(thought.close.strip())
        body = re.sub(rf"^\s*(?:{opening})?\s*{close}", "", body)
    while around := next((tag for tag in skipped if body.startswith(tag)), ""):
        body = body.removeprefix(around)
    return body.lstrip("\n")


def _thought(texts: Renders, start: str) -> tuple[Thought | None, tuple[str, ...]]:
    """What stands around thoughts, and what stands around texts and says nothing."""
    skipped = AROUND.findall(texts.behind_text)[:-1]  # the last one ends the generation
    skipped += AROUND.findall(texts.behind_text.removesuffix(common_end(texts.behind_text, texts.one)))
    if SAY in texts.say and texts.say.startswith(start):
        skipped += AROUND.findall(texts.say[len(start) : texts.say.index(SAY)])
    thought = _shown_thought(texts, start, skipped) or _told_thought(texts)
    around = (thought.open.strip(), thought.close.strip()) if thought is not None else ()
    kept = [tag for tag in skipped if tag not in around and THOUGHT_TAG.fullmatch(tag) is None]
    return thought, tuple(dict.fromkeys(kept))


def _shown_thought(texts: Renders, start: str, skipped: list[str]) -> Thought | None:
    """What stands around a thought in the history. Adds what stands between it and a text to `skipped`."""
    for text in (texts.think, texts.all):
        before, _, behind = text.partition(THINK)
        close = first_tag(behind)
        if not close.strip():
            continue
        opening = before[len(start) :] if text is texts.think and before.startswith(start) else from_last_tag(before)
        between = behind.partition(SAY)[0] if SAY in behind else ""
        if NAME not in between:
            skipped += AROUND.findall(between[len(close) :])
        return Thought(open=from_last_tag(opening if opening.strip() else texts.prompt[len(start) :]), close=close)
    return None


def _told_thought(texts: Renders) -> Thought | None:
    """What stands around thoughts by the prompt, which opens or ends one, or by the place of one that was left out."""
    for text in (texts.prompt, texts.one, texts.say):
        if (found := THOUGHT_TAG.search(text)) is not None:
            tag = found.group().replace("/", "", 1)
            return Thought(open=tag, close=tag[0] + "/" + tag[1:])
    return None


def _channels(texts: Renders, start: str) -> Format | None:
    """The form of answers that are messages to somebody, where a call names its tool as who is spoken to."""
    found = re.search(rf"(?P<recipient>\s+to=)(?P<function>[\w.]*?){NAME}", texts.one)
    if found is None or THINK not in texts.think or SAY not in texts.think:
        return None
    before = texts.think.partition(THINK)[0]
    close = from_last_tag(before)
    channel = TAG.match(before.removesuffix(close).removeprefix(start))
    tails = [texts.think.partition(THINK)[2], texts.think.partition(SAY)[2], from_last_tag(texts.one)]
    ends = dict.fromkeys(tag.group() for tail in tails if (tag := TAG.match(tail.strip())) is not None)
    start = start.partition(found["recipient"])[0]
    begun = re.search(r"[<\[][^<>\[\]]*[>\]]\w*$", start)
    bodies = [re.split("|".join(map(re.escape, ends)), body)[0] for body in re.split(re.escape(close), texts.two)[1:]]
    calls = detect_calls(bodies[0], "".join(bodies)) if NAME in bodies[0] else None
    return Format(
        name="channels",
        calls=calls,
        channels=Channels(
            start=begun.group() if begun is not None else start,
            channel=channel.group() if channel is not None else "",
            header_close=close.strip(),
            ends=tuple(ends),
            recipient=found["recipient"],
            function=found["function"],
        ),
    )


def _before_calls(texts: Renders, calls: Calls | None) -> str:
    """The blanks between a text and a call."""
    found = re.search(rf"{SAY}(\s*)\S", texts.all)
    opening = (calls.section_open or calls.open).strip() if calls is not None else ""
    if found is None or not opening:
        return ""
    return found.group(1) if texts.all[found.end(1) :].startswith(opening[:4]) else ""
