"""The openai client, unmodified, gets what it expects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from tests.e2e.server_process import ServerProcess

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "4096", "-np", "4")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=32, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.model == "m"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_list_models(client: openai.OpenAI) -> None:
    assert len(client.models.list().data) == 1


@pytest.mark.parametrize(
    "content",
    [
        "Write the word cat, then an emoji of a cat.",
        "Repeat exactly: 😀🎉🚀 日本語 中文字符 한국어 🧑‍🚀",
        "Translate 'good morning' into Japanese and Chinese.",
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_streamed_chat_equals_the_plain_one(client: openai.OpenAI, content: str, temperature: float) -> None:
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 48,
        "temperature": temperature,
        "seed": 11,
    }
    plain = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == plain.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_emoji_and_cjk_come_whole_in_completions(client: openai.OpenAI) -> None:
    prompt = "😀🎉🚀 日本語 中文\n" * 6
    asked = {"model": "m", "prompt": prompt, "max_tokens": 64, "temperature": 0}
    plain = client.completions.create(**asked)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True) if chunk.choices)
    assert text == plain.choices[0].text
    assert "🎉" in text
    assert "日本語" in text
    # The limit may cut the last character in two; what there is of it is said as U+FFFD.
    assert "\ufffd" not in text[:-1]


def test_stop_strings_end_the_text_and_never_show(client: openai.OpenAI) -> None:
    asked = {"model": "m", "prompt": "1, 2, 3, 4, 5, 6,", "max_tokens": 64, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[10:14]
    assert len(stop) == 4
    plain = client.completions.create(**asked, stop=[stop, "never said"])
    streamed = list(client.completions.create(**asked, stop=[stop, "never said"], stream=True))
    assert plain.choices[0].text == whole[: whole.index(stop)]
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == plain.choices[0].text
    assert plain.choices[0].finish_reason == "stop"


def test_the_same_seed_gives_the_same_text_and_another_another(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        answer = client.completions.create(
            model="m",
            prompt="Once upon a time",
            max_tokens=24,
            temperature=1.2,
            seed=seed,
            extra_body={"cache_prompt": False},
        )
        return answer.choices[0].text

    first = [text(seed) for seed in range(4)]
    assert [text(seed) for seed in range(4)] == first
    assert len(set(first)) == 4


def test_n_gives_n_choices_from_one_prompt_evaluation(client: openai.OpenAI) -> None:
    asked = {"model": "m", "messages": MESSAGES, "max_tokens": 16, "temperature": 1.0, "seed": 3}
    both = client.chat.completions.create(**asked, n=2)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].message.content != both.choices[1].message.content
    single = client.chat.completions.create(**asked)
    assert both.usage.prompt_tokens == single.usage.prompt_tokens
    streamed = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**asked, n=2, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == {choice.index: choice.message.content for choice in both.choices}


def test_logit_bias_bans_and_forces(client: openai.OpenAI, server: ServerProcess) -> None:
    [paris] = server.ok("/tokenize", {"content": " Paris"})["tokens"]
    asked = {"model": "m", "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
    banned = client.chat.completions.create(**asked, logit_bias={str(paris): -100})
    assert " Paris" not in banned.choices[0].message.content
    forced = client.chat.completions.create(**asked, logit_bias={str(paris): 100})
    assert forced.choices[0].message.content == " Paris" * 16


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="m", messages=MESSAGES, temperature="hot")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.completions.create(model="m", prompt="word " * 3000)
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)
