from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llamabox.chat import builtin
from llamabox.chat.messages import Conversation, parse_messages
from llamabox.chat.template import ChatTemplate, RenderedChat, TooLong, render_chat, resolve_template
from llamabox.errors import InvalidRequest, OptionsError, ServerFault

Make = Callable[..., ChatTemplate]
USER = [{"role": "user", "content": "hi"}]
EVIL_WHEN_ASKED = "{%% if messages[0].content == 'evil' %%}%s{%% endif %%}{{ messages[0].content }}"


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ChatTemplate] = []

    def build(source: str, bos: str = "<s>", eos: str = "</s>", **options: Any) -> ChatTemplate:
        made.append(ChatTemplate(source, bos, eos, **options))
        return made[-1]

    yield build
    for template in made:
        template.close()


def child_pid(template: ChatTemplate, lane: Any = None) -> int:
    pid = (lane or template.quick).children[0].pid
    assert pid is not None
    return int(pid)


def test_variables(make: Make) -> None:
    source = (
        "{{ bos_token }}|{{ eos_token }}|{{ messages | length }}|{{ tools[0].function.name }}|"
        "{{ add_generation_prompt }}|{{ enable_thinking }}|{{ documents is none }}"
    )
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = make(source).render(USER, tools=tools, add_generation_prompt=False, extra={"enable_thinking": False})
    assert text == "<s>|</s>|1|f|False|False|True"


def test_bos_is_dropped_where_the_tokenizer_adds_it(make: Make) -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ bos_token }}"
    assert make(source).render(USER) == "<s>hi<s>"
    assert make(source, add_bos=True).render(USER) == "hi<s>"


def test_a_conversation_ends_with_the_opened_turn_and_the_prefill(make: Make) -> None:
    template = make(builtin.template("chatml"))
    body: dict[str, Any] = {"messages": [*USER, {"role": "assistant", "content": "Once"}]}
    start = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render_chat(template, parse_messages({"messages": USER})) == start
    assert render_chat(template, parse_messages(body)) == start + "Once"
    body["continue_final_message"] = False
    assert render_chat(template, parse_messages(body)).endswith("assistant\nOnce<|im_end|>\n<|im_start|>assistant\n")


def test_half_a_surrogate_pair_does_not_fail_the_call(make: Make) -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": '{"k": "\\ud800"}'}}
    messages = [*USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments.k }}{% endfor %}{% endfor %}"
    )
    assert make(source).render(messages) == "?"
    told = "{% for m in messages %}{{ m.content }}{% endfor %}"  # by its text, which says it with letters
    assert '{"k": "\\ud800"}' in make(told).render(messages)


def test_the_template_may_refuse(make: Make) -> None:
    with pytest.raises(InvalidRequest, match="no such role") as caught:
        make("{{ raise_exception('no such role') }}").render(USER)
    assert caught.value.field == "messages"
    with pytest.raises(InvalidRequest, match="UndefinedError"):
        make("{{ messages[7].content.x }}").render(USER)


@pytest.mark.parametrize(
    "attack",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ (9 ** 9) ** ((messages | length + 8) ** 9) }}",
        "{{ 'a' * (10 ** 10) }}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ '%1999999999d' % 1 }}",
        "{{ 'a' | center(1999999999) }}",
        "{{ 'a' | indent(1999999999, true) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.__builtins__ }}",
    ],
)
def test_an_attack_fails_its_own_call_only(make: Make, attack: str) -> None:
    # The expression is made of the message, so that Jinja cannot compute it when it compiles the template.
    attack = attack.replace("'a'", "messages[0].content")
    template = make(EVIL_WHEN_ASKED % attack, cpu_seconds=0.3)
    assert template.render(USER) == "hi"
    with pytest.raises((ServerFault, InvalidRequest)):
        template.render([{"role": "user", "content": "evil"}])
    assert template.render(USER) == "hi"


def test_an_attack_while_compiling_fails_the_calls(make: Make) -> None:
    template = make("{{ 'a' * (10 ** 11) }}")
    template.warm()
    with pytest.raises(ServerFault, match="memory"):
        template.render(USER)


def test_a_wrong_template_is_told_at_the_start(make: Make) -> None:
    with pytest.raises(OptionsError, match="line 2"):
        make("\n{% if %}").check()
    with pytest.raises(ServerFault, match="line 2"):
        make("\n{% if %}").render(USER)
    make("{{ messages[99].nothing.here }}").check()


def test_a_child_that_was_killed_is_replaced(make: Make) -> None:
    template = make("{{ messages[0].content }}")
    template.warm()
    pid = child_pid(template)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert template.render(USER) == "hi"
    assert child_pid(template) != pid


def test_a_large_chat_is_read_where_it_is_rendered(make: Make) -> None:
    """With the same prompt and the same refusals, and whatever is refused leaves the child for the next."""
    template = make("{% for m in messages %}{{ m.content }};{% endfor %}{{ mood }}{{ tone }}")
    body = {"messages": [*USER, {"role": "user", "content": "there"}], "seed": 1, "stop": None}
    body["chat_template_kwargs"] = {"tone": "low"}

    def read(raw: bytes, most_bytes: int | None = None, **wishes: str) -> tuple[dict[str, Any], RenderedChat]:
        return template.read(raw, wishes=lambda body: wishes, most_bytes=most_bytes)

    def refuse(body: dict[str, Any]) -> dict[str, Any]:
        raise InvalidRequest("no such mood", field="mood")

    raw = json.dumps(body).encode()
    rest, told = read(raw, mood="glad", tone="high")
    assert rest == {"seed": 1}
    assert told.prompt == "hi;there;gladlow"
    assert told.conversation.template_kwargs == {"tone": "low"}
    pid = child_pid(template, template.long)
    with pytest.raises(TooLong) as caught:
        read(raw, most_bytes=6)
    assert caught.value.n_bytes == 7
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        read(raw[:-1])
    with pytest.raises(InvalidRequest) as refused:
        read(b'{"messages": [{"role": "user"}]}')
    assert refused.value.field == "messages[0].content"
    with pytest.raises(InvalidRequest, match="mood"):
        template.read(raw, wishes=refuse, most_bytes=None)
    assert read(raw, most_bytes=7)[1].prompt == "hi;there;low"
    assert child_pid(template, template.long) == pid


def test_what_a_template_may_leave_out_does_not_count(make: Make) -> None:
    template = make("This is no chat template")
    raw = json.dumps({"messages": USER}).encode()
    assert template.read(raw, wishes=lambda body: {}, most_bytes=0)[1].prompt == "This is no chat template"


def test_nobody_waits_behind_long_conversations(make: Make) -> None:
    """They have a child of their own, and more time than short ones."""
    slow = "{% for m in messages %}{% for n in range(6000) %}{% endfor %}{% endfor %}done"
    template = make(slow, cpu_seconds=1.0)
    template.warm()
    long = [{"role": "user", "content": "x"}] * 1_200
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(template.render, long) for _ in range(2)]
        while template.long.children[0].pid is None:
            time.sleep(0.01)
        assert template.render(USER) == "done"
        assert not all(work.done() for work in waiting)
        assert [work.result() for work in waiting] == ["done"] * 2


def test_an_event_loop_renders_as_a_thread_does(make: Make) -> None:
    """With the same words for what goes wrong; and a chat whose client left costs nobody else's answer."""
    template = make(EVIL_WHEN_ASKED % "{{ raise_exception('no') }}")
    chat, evil = (parse_messages({"messages": [{"role": "user", "content": text}]}) for text in ("hi", "evil"))

    async def rendered(conversation: Conversation) -> str:
        begun = template.begin(conversation)
        assert begun is not None
        return template.finish(await asyncio.shield(begun))

    async def scene() -> None:
        assert template.begin(chat) is None, "no child has started"
        template.warm()
        assert await rendered(chat) == render_chat(template, chat) == "hi"
        with pytest.raises(InvalidRequest) as by_loop:
            await rendered(evil)
        with pytest.raises(InvalidRequest) as by_thread:
            render_chat(template, evil)
        assert by_loop.value.message == by_thread.value.message
        leaving = asyncio.create_task(rendered(evil))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        while (begun := template.begin(chat)) is None:
            await asyncio.sleep(0.01)
        assert template.finish(await begun) == "hi"

    asyncio.run(scene())
    assert len([child for child in template.quick.children if child.pid is not None]) == 1


def test_an_event_loop_asks_no_child_of_a_broken_template(make: Make) -> None:
    template = make("{{ unclosed")
    template.warm()

    async def scene() -> None:
        assert template.begin(parse_messages({"messages": USER})) is None

    asyncio.run(scene())
    with pytest.raises(ServerFault, match="the chat template failed"):
        template.render(USER)


def test_close_ends_the_child(make: Make) -> None:
    template = make("x")
    template.warm()
    pid = child_pid(template)
    template.close()
    template.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_too_deep_messages_are_refused(make: Make) -> None:
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="deep"):
        make("x").render([{"role": "user", "content": deep}])


def test_which_template() -> None:
    assert resolve_template(None, "{{ own }}") == "{{ own }}"
    assert resolve_template(None, None) == builtin.template("chatml")
    assert resolve_template("ChatML", "{{ own }}") == builtin.template("chatml")
    long = "{{ messages | tojson }} and more"
    assert resolve_template(long, "{{ own }}") == long
    with pytest.raises(OptionsError, match="llama3"):
        resolve_template("llama33", None)
