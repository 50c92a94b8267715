"""Thoughts of chats, as options and requests have them, and what of a conversation is continued."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from llamabox.engine.request import ThoughtBudget
from llamabox.errors import OptionsError
from llamabox.options.commandline import compose, parse
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import Running, events, running

USER = {"role": "user", "content": "Hi"}
START = "<|im_start|>assistant\n"

TEMPLATE = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.reasoning_content and (preserve_thinking or loop.last) -%}
<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if tone %}<tone {{ tone }}>{% endif -%}
{%- if reasoning_effort %}<effort {{ reasoning_effort }}>{% endif -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
"""Thoughts are opened by the model, unless it may not think."""

OPENING = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.reasoning_content -%}
<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""
"""Thoughts are opened by the prompt."""


RUNNER = asyncio.Runner()
OPEN = contextlib.AsyncExitStack()


@pytest.fixture(scope="module", autouse=True)
def servers_are_closed() -> Iterator[None]:
    yield
    RUNNER.run(OPEN.aclose())
    RUNNER.close()


class Server:
    """Asks a server with these options. Each of its answers is the `words`."""

    def __init__(
        self, *options: str, words: tuple[str, ...] = ("Hm.", "\n</think>\n\n", "Four."), template: str = TEMPLATE
    ):
        _, _, self._config = compose(parse(["--chat-template", template, *options], {}))
        self.client = FakeTextClient(saying(*words))
        self._running: Running[FakeTextClient] | None = None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return RUNNER.run(self._send(method, path, body))

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        if self._running is None:
            self._running = await OPEN.enter_async_context(running(self.client, self._config, within=math.inf))
        return await self._running.http.request(method, path, json=body)

    def _post(self, path: str, body: dict[str, Any], status: int) -> Any:
        reply = self._ask("POST", path, {"messages": [USER], **body})
        assert reply.status_code == status, reply.text
        return events(reply.text) if body.get("stream") else reply.json()

    def prompt(self, **body: Any) -> str:
        return str(self._post("/apply-template", body, 200)["prompt"])

    def props(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", "/props").json()
        return found

    def message(self, **body: Any) -> tuple[str, str | None]:
        """The answer's text and thought."""
        message = self._post("/v1/chat/completions", body, 200)["choices"][0]["message"]
        return message["content"], message.get("reasoning_content")

    def streamed(self, **body: Any) -> tuple[str, str]:
        chunks = self._post("/v1/chat/completions", {**body, "stream": True}, 200)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]" and chunk["choices"]]
        both = ("content", "reasoning_content")
        text, thought = ("".join(delta.get(name) or "" for delta in deltas) for name in both)
        return text, thought

    def refused(self, **body: Any) -> str:
        return str(self._post("/v1/chat/completions", body, 400)["error"]["message"])

    def settings(self, **body: Any) -> dict[str, Any]:
        """The settings that a reply shows."""
        reply = self._post("/v1/chat/completions", {**body, "verbose": True}, 200)
        last = reply if isinstance(reply, dict) else next(one for one in reversed(reply) if "__verbose" in one)
        found: dict[str, Any] = last["__verbose"]["generation_settings"]
        return found

    def budget(self, **body: Any) -> ThoughtBudget | None:
        self.message(**body)
        return self.client.submits[-1].params.thought


def test_variables_of_the_template() -> None:
    server = Server("--chat-template-kwargs", '{"tone": "warm"}')
    assert "<tone warm>" in server.prompt()
    assert "<tone cold>" in server.prompt(chat_template_kwargs={"tone": "cold"})
    assert "must be true or false, not 'false'" in server.refused(chat_template_kwargs={"enable_thinking": "false"})


def test_where_thoughts_stand() -> None:
    apart, within = ("Four.", "Hm."), "Hm.\n</think>\n\nFour."
    for options in ((), ("--reasoning-format", "deepseek")):
        server = Server(*options, template=OPENING)
        assert server.message() == server.streamed() == apart
        assert server.message(reasoning_format="none") == (within, None)
        assert server.streamed(reasoning_format="none") == (within, "")
    assert Server("--reasoning-format", "none", template=OPENING).message() == (within, None)
    legacy = Server("--reasoning-format", "deepseek-legacy", template=OPENING)
    assert legacy.message() == ("<think>\nHm.\n</think>\n\nFour.", "Hm.")
    assert legacy.streamed() == (within, "")
    assert legacy.message(reasoning_format="auto") == apart
    assert "deepseek-legacy, none" in legacy.refused(reasoning_format="some")


def test_the_settings_tell_how_an_answer_is_taken_apart() -> None:
    tool = {"type": "function", "function": {"name": "look_up"}}
    keys = ("chat_format", "reasoning_format", "reasoning_in_content")
    words = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    thinker, plain = Server(template=OPENING), Server("--reasoning-format", "deepseek", template=words)
    form = thinker.props()["chat_format"]
    for server, asked, told in (
        (thinker, {}, (form, "auto", False)),
        (thinker, {"reasoning_format": "deepseek-legacy"}, (form, "deepseek-legacy", False)),
        (thinker, {"reasoning_format": "none"}, ("Content-only", "none", False)),
        (thinker, {"reasoning_format": "none", "tools": [tool]}, (form, "none", False)),
        (plain, {}, ("Content-only", "deepseek", False)),
        (plain, {"tools": [tool]}, ("generic", "deepseek", False)),
        (Server("--skip-chat-parsing", template=OPENING), {"tools": [tool]}, ("Content-only", "auto", False)),
    ):
        found = server.settings(**asked)
        assert tuple(found[key] for key in keys) == told
    streamed = thinker.settings(stream=True, reasoning_format="deepseek-legacy", tools=[tool])
    assert tuple(streamed[key] for key in keys) == (form, "deepseek-legacy", True)
    default = plain.props()["default_generation_settings"]
    assert tuple(default[key] for key in keys) == ("Content-only", "deepseek", False)


def test_whether_and_how_much_is_thought() -> None:
    ended = "<think>\n\n</think>\n\n"
    off = Server("--reasoning", "off")
    assert off.prompt().endswith(ended)
    assert off.prompt(chat_template_kwargs={"enable_thinking": True}).endswith(START)
    assert off.prompt(reasoning_effort="high").endswith(START)
    assert Server("-rea", "on").prompt().endswith(START)
    assert Server().prompt(reasoning_effort="none").endswith(ended)
    assert "<effort low>" in Server("--reasoning-effort", "low").prompt()
    assert "<effort high>" in Server("--reasoning-effort", "low").prompt(reasoning_effort="high")
    for server in (off, Server("--reasoning", "auto", template=OPENING)):
        assert server.budget() is None
    cannot = Server("--reasoning", "off", template=OPENING).budget()
    assert cannot is not None
    assert (cannot.n_tokens, cannot.is_begun) == (0, True)


def test_the_tokens_of_thoughts() -> None:
    server = Server("--reasoning-budget", "30", "--reasoning-budget-message", "Enough.")
    made = ThoughtBudget(n_tokens=30, opens=("<think>",), closes=("</think>",), message="Enough.", close="\n</think>")
    assert server.budget() == made
    found = server.budget(thinking_budget_tokens=2, reasoning_budget_message="")
    assert found == ThoughtBudget(n_tokens=2, opens=("<think>",), closes=("</think>",), close="\n</think>")
    assert server.budget(reasoning_budget_tokens=-1) is None
    opened = Server(template=OPENING)
    assert opened.budget() is None
    found = opened.budget(reasoning_budget_tokens=0, reasoning_format="none")
    assert found is not None
    assert (found.n_tokens, found.is_begun) == (0, True)
    assert "reasoning_budget_tokens" in server.refused(reasoning_budget_tokens=-2)
    assert "must not have the end" in server.refused(reasoning_budget_message="So </think> there.")


FOUR = 'root ::= "Four."'
WHOLE = 'root ::= "<think>" [^<]+ "</think>" "Four."'


@pytest.mark.parametrize("template", [TEMPLATE, OPENING], ids=["of the model", "of the prompt"])
def test_a_grammar_holds_for_what_follows_a_thought(template: str) -> None:
    server, default = Server(template=template), Server("--grammar", FOUR, template=template)
    asked: list[dict[str, Any]] = [{"grammar": FOUR}, {"response_format": {"type": "grammar", "grammar": FOUR}}, {}]
    for body in asked:
        reply = (server if body else default)._post("/v1/chat/completions", {**body, "verbose": True}, 200)
        params = (server if body else default).client.submits[-1].params
        [inner] = params.inner_grammars
        assert (params.grammar, inner.syntax, inner.definition) == ("", "gbnf", FOUR)
        assert f"@{inner.name}" in params.answer_grammar
        assert "</think>" in params.answer_grammar
        assert reply["__verbose"]["generation_settings"]["grammar"] == FOUR


def test_a_grammar_of_thought_and_text_holds_from_the_first_token() -> None:
    server = Server()
    for body in (
        {"grammar": WHOLE},
        {"grammar": FOUR, "reasoning_format": "none"},
        {"grammar": FOUR, "chat_template_kwargs": {"enable_thinking": False}},
    ):
        server.message(**body)
        params = server.client.submits[-1].params
        assert (params.grammar, params.answer_grammar) == (body["grammar"], "")
    assert Server(template=OPENING).message(grammar=WHOLE) == ("Four.", "Hm.")


def test_thoughts_of_earlier_turns() -> None:
    turns = [
        USER,
        {"role": "assistant", "content": "Four.", "reasoning_content": "Hm."},
        {"role": "tool", "content": "x"},
    ]
    for options in ((), ("--reasoning-preserve",)):
        assert "Hm." in Server(*options).prompt(messages=turns)
    assert "Hm." not in Server("--no-reasoning-preserve").prompt(messages=turns)
    assert "Hm." not in Server().prompt(messages=turns, chat_template_kwargs={"preserve_reasoning": False})


def test_whether_a_last_message_is_continued() -> None:
    turns = [USER, {"role": "assistant", "content": "Once"}]
    for options in ((), ("--prefill-assistant",)):
        assert Server(*options).prompt(messages=turns).endswith(START + "Once")
    whole = Server("--no-prefill-assistant")
    assert whole.prompt(messages=turns).endswith(f"Once<|im_end|>\n{START}")
    assert whole.prompt(messages=[*turns, turns[-1]]).endswith(f"Once<|im_end|>\n{START}")
    assert whole.prompt(messages=turns, continue_final_message=True).endswith(START + "Once")
    assert "join them" in Server().refused(messages=[*turns, turns[-1]])


def test_answers_that_nobody_takes_apart() -> None:
    words, tools = ("<think>Hm.</think>", "Four."), [{"type": "function", "function": {"name": "f"}}]
    server = Server("--skip-chat-parsing", words=words)
    assert server.message() == server.message(tools=tools) == ("<think>Hm.</think>Four.", None)
    assert server.client.submits[-1].params.answer_grammar == ""
    assert "--skip-chat-parsing" in server.refused(tools=tools, tool_choice="required")
    assert Server("--skip-chat-parsing", "--no-skip-chat-parsing", words=words).message() == ("Four.", "Hm.")


@pytest.mark.parametrize("template", [TEMPLATE, OPENING], ids=["of the model", "of the prompt"])
@pytest.mark.parametrize(
    "start",
    [
        {"content": "<think>\nIt is"},
        {"content": "", "reasoning_content": "It is"},
        {"content": None, "reasoning_content": "It is"},
    ],
)
def test_a_thought_is_continued_as_a_thought(template: str, start: dict[str, Any]) -> None:
    server = Server(words=(" so.", "\n</think>\n\n", "Four."), template=template)
    turns = [USER, {"role": "assistant", **start}]
    assert server.prompt(messages=turns).endswith(f"{START}<think>\nIt is")
    assert server.message(messages=turns) == server.streamed(messages=turns) == ("Four.", " so.")
    found = server.budget(messages=turns, reasoning_budget_tokens=9)
    assert found is not None
    assert found.is_begun


@pytest.mark.parametrize("template", [TEMPLATE, OPENING], ids=["of the model", "of the prompt"])
@pytest.mark.parametrize(
    "start",
    [{"content": "<think>\nHm.\n</think>\n\nIt is"}, {"content": "It is", "reasoning_content": "Hm."}],
)
def test_text_behind_a_thought_is_continued_as_text(template: str, start: dict[str, Any]) -> None:
    server = Server(words=(" four", "."), template=template)
    turns = [USER, {"role": "assistant", **start}]
    assert server.prompt(messages=turns).endswith(f"{START}<think>\nHm.\n</think>\n\nIt is")
    assert server.message(messages=turns) == (" four.", None)
    found = server.budget(messages=turns, reasoning_budget_tokens=9)
    assert found is not None
    assert not found.is_begun


def test_what_of_a_last_message_is_continued() -> None:
    server = Server(words=(" so", "."))
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    asked = {"messages": [USER, thought]}
    assert server.prompt(**asked, continue_final_message="reasoning_content").endswith("<think>\nHm.")
    assert server.prompt(**asked, continue_final_message="content").endswith("<think>\nHm.\n</think>\n\n")
    both = [USER, {**thought, "content": "Four"}]
    assert "content behind it" in server.refused(messages=both, continue_final_message="reasoning_content")
    neither = [USER, {"role": "assistant", "content": ""}]
    assert "no reasoning_content" in server.refused(messages=neither, continue_final_message="reasoning_content")
    assert "content or reasoning_content" in server.refused(**asked, continue_final_message="some")


def test_a_form_that_the_user_names() -> None:
    words = ('[TOOL_CALLS]f[ARGS]{"a": 1}',)
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert Server(words=words).message(tools=tools)[0] == words[0]
    named = Server("--chat-format", "mistral", words=words)
    assert named.message(tools=tools) == (None, None)
    assert "[TOOL_CALLS]" in named.client.submits[-1].params.answer_grammar
    assert named.client.submits[-1].params.answer_opening is None, "a thought may come first"
    turns = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
    unthinking = Server("--chat-format", "mistral-nemo", words=("Four.",), template=turns)
    assert unthinking.message(tools=tools)[0] == "Four."
    assert unthinking.client.submits[-1].params.answer_opening == "[TOOL_CALLS]"
    assert named.props()["chat_format"] == "name-json"
    with pytest.raises(OptionsError, match=r"expected hermes, llama-3, .*channels"):
        parse(["--chat-format", "some"], {})


def test_what_is_known_of_a_template_is_told() -> None:
    props = Server().props()
    assert props["chat_format"] == "generic"
    assert props["chat_format_known"] == {
        "thoughts": True,
        "tool_calls": False,
        "thinking_switch": True,
        "parallel_tool_calls": False,
    }
    caps = props["chat_template_caps"]
    assert (caps["supports_system_role"], caps["supports_tools"], caps["supports_tool_calls"]) == (True, False, False)
    assert (caps["supports_preserve_reasoning"], caps["supports_reasoning_effort"]) == (True, True)
    assert Server(template="{{ messages that are no expression }}").props()["chat_template_caps"] == {}
