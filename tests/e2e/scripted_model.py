"""A model that calls tools as a script says, on a server as a user runs it.

The server's own grammar leaves the demo model a few answers to choose from, and the end of the prompt repeats how one
of them begins, by what was said last. So agents that send nothing but OpenAI's fields have a conversation whose answers
are known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.chat.templates import HERMES


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, how the prompt begins it, and the word of the last message that asks for it."""

    text: str
    start: str
    word: str


def called(name: str, arguments: dict[str, str]) -> str:
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


def _begun(answer: str) -> str:
    repeated = f"<|im_start|>assistant\n{answer}<|im_end|>\n"
    return f"{{{{ {json.dumps(repeated)} * 4 }}}}"


TURN = "{% if add_generation_prompt %}"
assert HERMES.count(TURN) == 1
TEMPLATE = HERMES.replace(
    TURN,
    TURN
    + "{% set asked = messages[-1].content | string %}"
    + f"{{% if messages[-1].role == 'tool' %}}{_begun('Rain falls')}"
    + "".join(f"{{% elif '{answer.word}' in asked %}}{_begun(answer.start)}" for answer in ANSWERS)
    + "{% endif %}",
)
GRAMMAR = "root ::= " + " | ".join(json.dumps(text) for text in (REPORT, *(answer.text for answer in ANSWERS)))

ARGUMENTS = ("-c", "8192", "-np", "2", "--top-k", "1", "--grammar", GRAMMAR, "--chat-template", TEMPLATE)
"""Options of a server with it, beside the demo model."""
