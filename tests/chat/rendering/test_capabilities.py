from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llamabox.chat.rendering.adapt import adapt
from llamabox.chat.rendering.capabilities import Capabilities
from llamabox.chat.rendering.environment import compile_template
from llamabox.chat.rendering.probe import probe

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


def seen(source: str, *, with_tools: bool = False) -> tuple[Capabilities, Any]:
    """What the probe found, and a way to render."""
    template = compile_template(source)

    def render(messages: Sequence[dict[str, Any]], variables: Mapping[str, Any]) -> str | None:
        try:
            return template.render(messages=messages, bos_token="", eos_token="", **variables)
        except Exception:
            return None

    return probe(render, with_tools=with_tools), render


def shown(source: str, messages: list[dict[str, Any]]) -> str | None:
    can, render = seen(source)
    text = render(adapt(messages, can), {})
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


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.role }}:"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}[{{ c.function | tojson }}]{% endfor %};{% endfor %}"
)
FIRST = NO_SYSTEM.replace("m.role == 'system'", "m.role == 'system' and not loop.first")


@pytest.mark.parametrize("source", [NO_SYSTEM, FIRST, STRICT])
@pytest.mark.parametrize("leads", [False, True])
def test_what_is_told_stays_when_a_conversation_with_system_texts_goes_on(source: str, leads: bool) -> None:
    """Agents add such a text behind what each tool answers: the prompt of the next turn begins as the last one did."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}] if leads else []
    messages.append({"role": "user", "content": "q"})
    before = ""
    for turn in "abc":
        call = {"id": turn, "type": "function", "function": {"name": "f", "arguments": {"k": turn}}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": turn, "content": f"result {turn}"},
            {"role": "system", "content": f"left {turn}"},
        ]
        told = shown(source, messages)
        assert told is not None
        assert told.startswith(before[:-1])
        assert all(f"left {one}" in told for one in "abc"[: "abc".index(turn) + 1])
        before = told


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("{{ c.function.arguments | tojson }}", '[f {"k": 1}]'),
        ("{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}", "[f k=1]"),
        ("{{ c.function.name + c.function.arguments }}", '[f f{"k": 1}]'),
    ],
)
def test_arguments_come_as_object_or_text(printed: str, expected: str) -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": {"k": 1}}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = shown(CALLS.replace("PRINTED", printed), messages) or ""
    assert expected in text
    assert "None" not in text


def test_a_template_that_prints_its_tools_does_not_pass_for_one_that_prints_calls() -> None:
    source = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}" + EITHER
    can, _ = seen(source, with_tools=True)
    assert can.calls == "words"
    assert seen(source)[0].calls == "words"


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
        'user:{"tool_response": {"name": "f", "tool_call_id": "call00000", "content": "42"}};'
    )


def test_results_stand_behind_their_calls_where_a_message_may_hold_one_call() -> None:
    source = (
        "{% for m in messages %}{% if m.tool_calls %}"
        "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call, please') }}{% endif %}"
        "[{{ m.tool_calls[0].function | tojson }}]{% else %}{{ m.role }}:{{ m.content }};{% endif %}{% endfor %}"
    )
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": {"k": name}}} for name in ("f", "g")
    ]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "g", "content": "of g"},
        {"role": "tool", "tool_call_id": "f", "content": "of f"},
    ]
    f, g = ('[{"name": "%s", "arguments": {"k": "%s"}}]' % (name, name) for name in ("f", "g"))  # noqa: UP031
    assert shown(source, messages) == f"user:q;{f}tool:of f;{g}tool:of g;"


def test_adapting_changes_nothing_of_the_input() -> None:
    can, _ = seen(STRICT)
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "t"},
        {"role": "tool", "content": "r"},
        {"role": "user", "content": None},
    ]
    before = repr(messages)
    adapt(messages, can)
    assert repr(messages) == before


def test_a_template_that_always_raises_can_be_probed() -> None:
    assert seen("{{ raise_exception('no') }}")[0] == Capabilities(developer="system")
