"""Random conversations: items that a client may send, and answers as a model may write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llamabox.engine.events import Event, FinishReason
from llamabox.wire.text import Submit
from tests.server.fake_client import Script, delta, finished, started

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
WEATHER = {"type": "function", "name": "weather", "description": "The weather.", "parameters": PARAMETERS}
TIME = {"type": "function", "name": "time", "parameters": PARAMETERS}
MAIL = {"type": "namespace", "name": "mail", "description": "Letters.", "tools": [{**WEATHER, "name": "send"}]}
PATCH = {"type": "custom", "name": "patch", "description": "Changes files."}
TOOLS: list[dict[str, Any]] = [WEATHER, TIME, MAIL, PATCH]
NAMES = {"weather": ("weather", None), "time": ("time", None), "mail__send": ("send", "mail")}
"""The names that the model sees: those of the client, and the namespaces."""

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<{"), min_size=1)
texts = words.map(str.strip).filter(bool)
arguments = st.fixed_dictionaries({}, optional={"city": st.text(max_size=8), "days": st.integers(0, 9)})


@dataclass(frozen=True)
class Said:
    """An answer: what is thought, what is said, and the calls behind it by the names that the model sees."""

    thought: str
    text: str
    calls: list[tuple[str, dict[str, Any]]]  # or the custom tool with its input as its only argument

    def written(self) -> str:
        """As the model writes it."""
        thought = f"<think>\n{self.thought}\n</think>\n\n" if self.thought else ""
        calls = [{"name": name, "arguments": arguments} for name, arguments in self.calls]
        return thought + self.text + "".join(f"\n<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


answers = st.builds(
    Said,
    thought=st.just("") | texts,
    text=st.just("") | texts,
    calls=st.lists(
        st.tuples(st.sampled_from(sorted(NAMES)), arguments)
        | st.tuples(st.just("patch"), st.fixed_dictionaries({"input": st.text(min_size=1)})),
        max_size=3,
    ),
)


def in_pieces(text: str, cuts: list[int], reason: FinishReason) -> Script:
    """An answer that comes in pieces cut at some characters."""
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    pieces = [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]

    def script(submit: Submit) -> list[list[Event]]:
        told: list[list[Event]] = [[delta(submit, piece, n)] for n, piece in enumerate(pieces, 1)]
        return [[started(submit)], *told, [finished(submit, len(pieces), reason=reason)]]

    return script


parts = st.one_of(
    st.builds(lambda text: {"type": "input_text", "text": text}, words),
    st.builds(lambda text: {"type": "output_text", "text": text, "annotations": []}, words),
    st.builds(lambda text: {"type": "refusal", "refusal": text}, words),
)
contents = words | st.lists(parts, min_size=1, max_size=3)
call_ids = st.sampled_from(["call_1", "call_2", "abc"])
items = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant", "system", "developer"]),
        contents,
    ),
    st.builds(
        lambda name, call_id, given: {
            "type": "function_call",
            "call_id": call_id,
            "name": NAMES[name][0],
            "namespace": NAMES[name][1],
            "arguments": json.dumps(given),
        },
        st.sampled_from(sorted(NAMES)),
        call_ids,
        arguments,
    ),
    st.builds(
        lambda call_id, output: {"type": "function_call_output", "call_id": call_id, "output": output},
        call_ids,
        contents,
    ),
    st.builds(
        lambda call_id, text: {"type": "custom_tool_call", "call_id": call_id, "name": "patch", "input": text},
        call_ids,
        words,
    ),
    st.builds(
        lambda text: {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}, words
    ),
    st.builds(
        lambda text: {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": text},
        words,
    ),
    st.just({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
)
conversations = words | st.lists(items, max_size=6).map(lambda some: [*some, {"role": "user", "content": "Hi"}])
