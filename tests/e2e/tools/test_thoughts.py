"""Thoughts that have only so many tokens, with a real model and the unmodified openai client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.server_process import ServerProcess

USER = {"role": "user", "content": "Tell me a story of a fox."}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
MESSAGE = " That is enough, é漢."
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(serve: Callable[..., ServerProcess]) -> Iterator[openai.OpenAI]:
    server = serve("-c", "8192", "-np", "4", "--chat-template", TEMPLATE)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, *, budget: int, message: str = MESSAGE, **asked: Any) -> Any:
    extra = {"reasoning_budget_tokens": budget, "reasoning_budget_message": message}
    asked = {"model": "m", "messages": [USER], "max_tokens": 40, "temperature": 0, "extra_body": extra, **asked}
    return client.chat.completions.create(**asked)


def test_a_thought_ends_with_the_message_and_the_answer_goes_on(client: openai.OpenAI) -> None:
    free = ask(client, budget=-1).choices[0].message.reasoning_content
    for n_tokens in (0, 7, 12):
        reply = ask(client, budget=n_tokens)
        message = reply.choices[0].message
        thought, found, rest = message.reasoning_content.partition(MESSAGE.strip())
        assert found
        assert not rest
        assert free.startswith(thought.rstrip())
        assert (len(thought.strip()) > 0) == (n_tokens > 0)
        assert message.content
        assert reply.usage.completion_tokens == 40
        assert n_tokens < reply.usage.completion_tokens_details.reasoning_tokens < 40


def test_streams_choices_and_log_probabilities_say_the_same(client: openai.OpenAI) -> None:
    plain = ask(client, budget=7).choices[0].message
    chunks = list(ask(client, budget=7, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(one, "reasoning_content", None) or "" for one in deltas) == plain.reasoning_content
    assert "".join(one.content or "" for one in deltas) == plain.content
    for choice in ask(client, budget=7, n=3).choices:
        assert (choice.message.reasoning_content, choice.message.content) == (plain.reasoning_content, plain.content)
    told = ask(client, budget=7, logprobs=True, top_logprobs=1).choices[0]
    assert (told.message.reasoning_content, told.message.content) == (plain.reasoning_content, plain.content)
    assert len(told.logprobs.content) == 40


def test_behind_a_thought_that_was_ended_the_answer_keeps_its_form(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    message = ask(client, budget=5, response_format=form).choices[0].message
    assert json.loads(message.content)["n"] in (1, 2)
    assert message.reasoning_content.endswith(MESSAGE.strip())
    called = ask(client, budget=5, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=96)
    [call] = called.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    assert called.choices[0].message.reasoning_content.endswith(MESSAGE.strip())


def test_a_grammar_holds_behind_the_thought(client: openai.OpenAI) -> None:
    extra = {"reasoning_budget_tokens": 5, "reasoning_budget_message": MESSAGE}
    for grammar in ('root ::= "yes" | "no"', 'root ::= word | "(" root ")"\nword ::= [a-c]'):
        message = ask(client, budget=5, extra_body={**extra, "grammar": grammar}).choices[0].message
        assert message.content in ("yes", "no") or set(message.content) <= set("()abc")
        assert message.reasoning_content.endswith(MESSAGE.strip())
    whole = 'root ::= "Hm.\\n</think>\\n\\n" "Four."'
    message = ask(client, budget=-1, extra_body={"grammar": whole}).choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm.", "Four.")


def test_a_thought_that_was_given_goes_on_and_is_counted_from_there(client: openai.OpenAI) -> None:
    turns = [USER, {"role": "assistant", "content": "<think>\nThe fox is"}]
    message = ask(client, budget=3, messages=turns).choices[0].message
    assert message.reasoning_content.endswith(MESSAGE.strip())
    assert "<think>" not in message.reasoning_content
    assert message.content
