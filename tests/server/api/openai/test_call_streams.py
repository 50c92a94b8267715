"""Streams with calls, of random tools and answers in every form: each chunk is what clients of OpenAI rely on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llamabox.engine.events import Event, FinishReason
from llamabox.server.hosted.answer_form import AnswerForm
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.hosted.text import HostedText
from llamabox.wire.text import Submit
from tests.chat.formats.writing import FORMS, Call, written
from tests.server.fake_client import INFO, FakeTextClient, delta, finished, started
from tests.server.harness import events, running

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
WORDS = ("a", "Zürich", '"', "\\", "{", "}", "[", "]", "<b>", "漢字", "🌍", ",", ":", "1", "null", "'", "\t")
LINES = (*WORDS, " ", "\n")
N_EACH = int(os.environ.get("LLAMABOX_STREAMS", "24"))
"""Streams in each form."""


class Chance(random.Random):
    """Random tools, and answers that call them."""

    def text(self, words: Sequence[str], n: int) -> str:
        return "".join(self.choices(words, k=self.randint(1, n)))

    def name(self) -> str:
        return self.choice(string.ascii_lowercase) + "".join(self.choices(string.ascii_lowercase + "_019", k=6))

    def tool_name(self) -> str:
        """As servers of tools name theirs, and longer than OpenAI allows."""
        return self.name() + "".join(self.choices(string.ascii_letters + "_-.", k=self.choice([3, 20, 100])))

    def value(self, kind: str) -> Any:
        match kind:
            case "string":
                return f"x{self.text(LINES, 8)}x"
            case "integer":
                return self.randint(-999, 999)
            case "number":
                return self.randint(-99, 99) + 0.5
            case "boolean":
                return self.random() < 0.5
            case "array":
                return [self.value("string") for _ in range(self.randint(0, 2))]
        return {
            self.name(): self.value(self.choice(["string", "integer", "boolean"])) for _ in range(self.randint(0, 2))
        }

    def tools(self) -> dict[str, dict[str, str]]:
        """Arguments and their kinds by the name of the tool."""
        kinds = ("string", "integer", "number", "boolean", "array", "object")
        return {
            self.tool_name(): {self.name(): self.choice(kinds) for _ in range(self.randint(0, 4))}
            for _ in range(self.randint(1, 4))
        }

    def calls(self, tools: dict[str, dict[str, str]]) -> list[Call]:
        names = self.choices(list(tools), k=self.choice([0, 1, 1, 2, 3]))
        return [
            (name, {key: self.value(kind) for key, kind in tools[name].items() if self.random() < 0.8})
            for name in names
        ]

    def pieces(self, text: str) -> list[str]:
        found, size = [], self.choice([1, 3, 8, 1000])
        while text:
            n = self.randint(1, size)
            found.append(text[:n])
            text = text[n:]
        return found


def tool(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def saying(pieces: list[str], reason: FinishReason) -> Any:
    """A script that lets every choice say this."""

    def script(submit: Submit) -> list[list[Event]]:
        everyone = range(submit.params.n)
        steps: list[list[Event]] = [[started(submit, i) for i in everyone]]
        steps += [[delta(submit, piece, n, i) for i in everyone] for n, piece in enumerate(pieces, 1)]
        steps.append([finished(submit, len(pieces), i, reason=reason) for i in everyone])
        return steps

    return script


@pytest.mark.parametrize("kind", FORMS)
def test_random_streams(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async def form(hosted: HostedText) -> AnswerForm:
        return AnswerForm(FORMS[kind], {})

    async def talk() -> None:
        client = FakeTextClient(info=replace(INFO, n_ctx=1 << 14))
        async with running(client, ModelConfig(chat_template=TEMPLATE), within=120) as server:
            for seed in range(N_EACH):
                chance = Chance(f"{kind} {seed}")
                tools = chance.tools()
                thinks = FORMS[kind].thought is not None or kind == "channels"
                thought = f"T{chance.text(WORDS, 4)}t" if thinks and chance.random() < 0.3 else ""
                text = f"S{chance.text(WORDS, 6)}s" if chance.random() < 0.5 else ""
                calls = chance.calls(tools)
                answer = written(kind, thought, text, calls)
                is_cut = bool(answer) and chance.random() < 0.2
                answer = answer[: chance.randint(0, len(answer))] if is_cut else answer
                reason = FinishReason.LENGTH if is_cut else FinishReason.STOP
                client.script = saying(chance.pieces(answer), reason)
                usage = chance.choice([None, True, False])
                n = chance.choice([1, 1, 2])
                body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": n}
                body["tools"] = [tool(name, kinds) for name, kinds in tools.items()]
                plain = await server.http.post("/v1/chat/completions", json=body)
                assert plain.status_code == 200, plain.text
                body |= {"stream": True, "stream_options": None if usage is None else {"include_usage": usage}}
                streamed = await server.http.post("/v1/chat/completions", json=body)
                where = f"{kind} {seed}: {answer!r}"
                whole = ChatCompletion.model_validate(plain.json())
                if not is_cut:
                    check_whole(whole, thought, text, calls, where)
                check_stream(events(streamed.text), whole, usage=usage, where=where)

    monkeypatch.setattr(HostedText, "answer_form", form)
    asyncio.run(talk())


def check_whole(whole: ChatCompletion, thought: str, text: str, calls: list[Call], where: str) -> None:
    """A plain reply says what was written."""
    for choice in whole.choices:
        message = choice.message
        told = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
        assert told == calls, where
        assert message.content == (text or (None if calls else "")), where
        assert getattr(message, "reasoning_content", "") == thought, where
        assert choice.finish_reason == ("tool_calls" if calls else "stop"), where


def check_stream(found: list[Any], whole: ChatCompletion, *, usage: bool | None, where: str) -> None:
    """Chunk by chunk what clients rely on, and all together what the plain reply says."""
    assert found.count("[DONE]") == 1, where
    assert found[-1] == "[DONE]", where
    chunks = [ChatCompletionChunk.model_validate(one) for one in found[:-1]]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1, where
    check_usage(chunks, whole, usage=usage, where=where)
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert [one.delta.role for one in mine] == ["assistant"] + [None] * (len(mine) - 1), where
        assert [one.finish_reason for one in mine] == [None] * (len(mine) - 1) + [choice.finish_reason], where
        names: list[str] = []
        for fragment in (fragment for one in mine for fragment in one.delta.tool_calls or ()):
            assert type(fragment.index) is int, where
            if fragment.index == len(names):  # the first one of a call: who is called
                assert fragment.id, where
                assert fragment.type == "function", where
                assert fragment.function.name, where
                names.append(fragment.function.name)
            else:  # more of its arguments, those of the last call alone
                assert fragment.index == len(names) - 1, where
                assert (fragment.id, fragment.type, fragment.function.name) == (None, None, None), where
                assert fragment.function.arguments, where
    assert summed(chunks) == [told(choice) for choice in whole.choices], where


def check_usage(chunks: list[ChatCompletionChunk], whole: ChatCompletion, *, usage: bool | None, where: str) -> None:
    """Usage comes last, on a chunk of its own where it was asked for, and once."""
    counts = [chunk.usage for chunk in chunks]
    assert counts[:-1] == [None] * (len(chunks) - 1), where
    assert (chunks[-1].choices == []) == (usage is True), where
    assert all(chunk.choices for chunk in chunks[:-1]), where
    assert counts[-1] == (None if usage is False else whole.usage), where


def summed(chunks: list[ChatCompletionChunk]) -> list[tuple[Any, ...]]:
    """The choices as the openai client puts them together."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    return [told(choice) for choice in state.current_completion_snapshot.choices]


def told(choice: Any) -> tuple[Any, ...]:
    """What a choice says, without the ids of its calls, which must be unique."""
    message = choice.message
    calls = message.tool_calls or ()
    assert len({call.id for call in calls}) == len(calls)
    thought = getattr(message, "reasoning_content", None) or ""
    if choice.finish_reason == "tool_calls":
        assert all(isinstance(json.loads(call.function.arguments), dict) for call in calls)
    named = [(call.type, call.function.name, call.function.arguments) for call in calls]
    return choice.index, choice.finish_reason, message.content or "", thought, named
