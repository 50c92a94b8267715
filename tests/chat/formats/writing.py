"""Writes answers as a model does that knows its form: what readers of it must find again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from llamabox.chat.formats.form import Format, JsonCalls
from tests.chat.formats.test_failures import GEMMA, HARMONY, HERMES, MISTRAL, PYTHON, QWEN

NEMO = Format(name="json-array", calls=JsonCalls(section_open="[TOOL_CALLS]", separator=", ", is_array=True))

Call = tuple[str, dict[str, Any]]
"""Name and arguments."""


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(call: Call) -> str:
    return f'{{"name": "{call[0]}", "arguments": {as_json(call[1])}}}'


def _tagged(call: Call) -> str:
    values = {key: value if isinstance(value, str) else as_json(value) for key, value in call[1].items()}
    arguments = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={call[0]}>\n{arguments}</function>\n</tool_call>"


def _python(call: Call) -> str:
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def _braced(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_braced(one)}" for key, one in value.items()) + "}"
    return f"[{','.join(map(_braced, value))}]" if isinstance(value, list) else as_json(value)


def _channels(thought: str, text: str, calls: Sequence[Call]) -> str:
    said = [f"<|channel|>analysis<|message|>{thought}<|end|>"] * bool(thought)
    said += [f"<|channel|>{'commentary' if calls else 'final'}<|message|>{text}<|end|>"] * bool(text)
    for name, arguments in calls:
        header = f" to=functions.{name}<|channel|>commentary json<|message|>"
        said.append(f"{header}{as_json(arguments)}<|call|>")
    return "<|start|>assistant".join(said)


CALLS: dict[str, tuple[Format, Callable[[Sequence[Call]], str]]] = {
    "json": (HERMES, lambda calls: "\n".join(f"<tool_call>\n{_object(call)}\n</tool_call>" for call in calls)),
    "json-array": (NEMO, lambda calls: f"[TOOL_CALLS][{', '.join(map(_object, calls))}]"),
    "name-json": (MISTRAL, lambda calls: "".join(f"[TOOL_CALLS]{name}[ARGS]{as_json(told)}" for name, told in calls)),
    "tags": (QWEN, lambda calls: "\n".join(map(_tagged, calls))),
    "python": (PYTHON, lambda calls: f"<|tool_call_start|>[{', '.join(map(_python, calls))}]<|tool_call_end|>"),
    "braces": (
        GEMMA,
        lambda calls: "".join(f"<|tool_call>call:{name}{_braced(told)}<tool_call|>" for name, told in calls),
    ),
}
FORMS = {**{name: form for name, (form, _) in CALLS.items()}, "channels": HARMONY}
"""One form of each kind."""


def written(kind: str, thought: str, text: str, calls: Sequence[Call]) -> str:
    """An answer. `thought` must be empty where the form has none."""
    if kind == "channels":
        return _channels(thought, text, calls)
    form, write = CALLS[kind]
    said = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    return said + text + (form.before_calls if text and calls else "") + (write(calls) if calls else "")
