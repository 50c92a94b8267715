from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llamabox.chat.capabilities import Capabilities, adapt, probe
from llamabox.chat.environment import compile_template

PARTS_ONLY = (
    "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
    "{% endfor %};{% endfor %}"
)
TEXT_ONLY = "{% for m in messages %}{{ m.role + ':' + m.content + ';' }}{% endfor %}"
EITHER = (
    "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %};{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('only user and assistant') }}{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}"
)
CALLS = (
    "{% for m in messages %}{{ m.role }}:{% if m.content is not none %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} PRINTED]{% endfor %};{% endfor %}"
)


def seen(source: str) -> tuple[Capabilities, Any]:
    """What the probe found, and a way to render."""
    template = compile_template(source)

    def render(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None) -> str | None:
        try:
            return template.render(messages=messages, tools=tools, bos_token="", eos_token="")
        except Exception:
            return None

    return probe(render, source), render


def shown(source: str, messages: list[dict[str, Any]]) -> str | None:
    can, render = seen(source)
    text = render(adapt(messages, can), None)
    return text if text is None else str(text)


TWO_PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]


@pytest.mark.parametrize(
    ("source", "parts", "string"),
    [(PARTS_ONLY, "user:ab;", "user:x;"), (TEXT_ONLY, "user:a\nb;", "user:x;"), (EITHER, "user:<a><b>;", "user:x;")],
)
def test_content_comes_as_the_template_reads_it(source: str, parts: str, string: str) -> None:
    assert shown(source, TWO_PARTS) == parts
    assert shown(source, [{"role": "user", "content": "x"}]) == string


def test_system_text_goes_before_the_next_user_where_the_role_is_unknown() -> None:
    messages = [
        {"role": "system", "content": "rule"},
        {"role": "developer", "content": "more"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    assert shown(STRICT, messages) == "user:rule\nmore\nq;assistant:a;"
    assert shown(STRICT, messages[:1]) == "user:rule;"
    assert shown(TEXT_ONLY, messages) == "system:rule;system:more;user:q;assistant:a;"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("{{ c.function.arguments | tojson }}", '[f {"k": 1}]'),
        ("{{ c.function.arguments.k }}", "[f 1]"),
        ("{{ c.function.name + c.function.arguments }}", '[f f{"k": 1}]'),
    ],
)
def test_arguments_come_as_object_or_text(printed: str, expected: str) -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": {"k": 1}}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = shown(CALLS.replace("PRINTED", printed), messages) or ""
    assert expected in text
    assert "None" not in text


def test_tool_traffic_is_told_in_words_where_the_template_has_none() -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": {"k": 1}}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "f", "content": "42"},
    ]
    text = shown(STRICT, messages)
    assert text == (
        'user:q;assistant:{"tool_calls": [{"name": "f", "arguments": {"k": 1}}]};'
        'user:{"tool_response": {"name": "f", "content": "42"}};'
    )


def test_adapting_changes_nothing_of_the_input() -> None:
    can, _ = seen(STRICT)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": None}]
    adapt(messages, can)
    assert messages == [{"role": "system", "content": "s"}, {"role": "user", "content": None}]


def test_a_template_that_always_raises_can_do_nothing() -> None:
    can, _ = seen("{{ raise_exception('no') }}")
    assert not any((can.text, can.parts, can.system_role, can.tool_calls, can.tool_role, can.null_content))
