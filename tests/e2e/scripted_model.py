"""A model that calls tools as a script says, on a server as a user runs it.

The server's own grammar leaves the demo model a few answers to choose from, and the end of the prompt repeats how one
of them begins, by what was said last. So agents that send nothing but OpenAI's fields have a conversation whose answers
are known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chat.templates import HERMES


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, how the prompt begins it, and the word of the last message that asks for it."""

    text: str
    start: str
    word: str


def called(name: str, arguments: dict[str, Any]) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


CALL = called("get_weather", {"city": "Paris"})
REPORT = "Rain falls in Paris today."
"""What is said behind a tool's result."""
INTRODUCTION = "I look."

ANSWERS = (
    Answer(f"{INTRODUCTION}\n{CALL}", INTRODUCTION, "weather"),
    Answer(f"{CALL}\n{called('get_time', {'zone': 'CET'})}", "<tool_call>\n{", "both"),
    Answer("<think>\nTwo and two.\n</think>\n\nFour.", "<think>\nTwo", "think"),
)


def begun(answer: str) -> str:
    """The end of a prompt that begins an answer."""
    return f"<|im_start|>assistant\n{answer}<|im_end|>\n" * 4


TURN = "{% if add_generation_prompt %}"


def template_of(cases: Sequence[tuple[str, str]]) -> str:
    """A template that begins an answer by the first of the cases whose condition in Jinja holds.

    A condition may look at `last`, the message, and at `asked`, its text.
    """
    assert HERMES.count(TURN) == 1
    told = "".join(f"{{% elif {condition} %}}{{{{ {json.dumps(begun(start))} }}}}" for condition, start in cases)
    last = "{% set last = messages[-1] %}{% set asked = last.content | string %}"
    return HERMES.replace(TURN, f"{TURN}{last}{{% if false %}}{told}{{% endif %}}")


def grammar_of(answers: Sequence[str]) -> str:
    """A grammar of one of the answers."""
    return "root ::= " + " | ".join(map(json.dumps, answers))


TEMPLATE = template_of(
    [("last.role == 'tool'", "Rain falls"), *((f"'{answer.word}' in asked", answer.start) for answer in ANSWERS)]
)
GRAMMAR = grammar_of([REPORT, *(answer.text for answer in ANSWERS)])

ARGUMENTS = ("-c", "8192", "-np", "2", "--top-k", "1", "--grammar", GRAMMAR, "--chat-template", TEMPLATE)
"""Options of a server with it, beside the demo model."""
