"""POST /v1/audio/transcriptions over a desk and a worker that are fakes, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.audio import Transcription

from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text import Submit
from tests.server.fake_client import INFO, FakeTextClient, saying
from tests.server.fake_media import SEES_AND_HEARS, SOUND_OF_TEN, FakeMediaDesk
from tests.server.harness import Running, running

ROUTE = "/v1/audio/transcriptions"
BARE = ModelConfig(chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
WAV = ("speech.wav", b"RIFF of the test", "audio/wav")
HEARING = replace(INFO, media=SEES_AND_HEARS)


class Heard(FakeTextClient):
    """Tells that six of a prompt's eight tokens are sound."""

    def __init__(self) -> None:
        super().__init__(saying("Hello", " there"), info=HEARING)

    def generate(self, submit: Submit) -> Any:
        generation = super().generate(submit)
        for events in list(generation._queue._queue):  # type: ignore[attr-defined]
            for event in events:
                if hasattr(event, "n_audio"):
                    event.n_audio = 6
        return generation


def openai(server: Running[FakeTextClient]) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


def asked(**fields: Any) -> tuple[Any, Submit, FakeMediaDesk]:
    """What the client makes of the answer, and what the worker and the desk were asked."""

    async def talk() -> tuple[Any, Submit, FakeMediaDesk]:
        client, desk = Heard(), FakeMediaDesk()
        async with running(client, BARE, media=desk) as server:
            async with openai(server) as api:
                reply = await api.audio.transcriptions.create(**({"model": "m", "file": WAV} | fields))
                if fields.get("stream"):
                    reply = [event async for event in reply]
            return reply, client.submits[0], desk

    return asyncio.run(talk())


def test_a_transcript_is_openai_s() -> None:
    reply, submit, desk = asked()
    assert isinstance(reply, Transcription)
    assert reply.text == "Hello there"
    assert reply.usage is not None
    assert reply.usage.to_dict() == {
        "type": "tokens",
        "input_tokens": 8,
        "output_tokens": 2,
        "total_tokens": 10,
        "input_token_details": {"audio_tokens": 6, "text_tokens": 2},
    }
    assert submit.prompt == ["Transcribe audio to text", SOUND_OF_TEN]
    assert submit.params.sampling.temperature == 0
    [source] = desk.read_sources
    assert (source.kind, source.data, source.field) == ("audio", WAV[1], "file")


def test_a_stream_ends_with_the_whole_text() -> None:
    events, _, _ = asked(stream=True)
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == "Hello there"
    assert events[-1].usage.total_tokens == 10


def test_the_bare_text() -> None:
    assert asked(response_format="text")[0] == "Hello there"


def test_fields_reach_the_model() -> None:
    _, submit, _ = asked(
        prompt="Write it down", language="de", temperature=0.5, extra_body={"max_tokens": 7, "seed": 3}
    )
    assert submit.prompt[0] == "Write it down (language: de)"
    assert (submit.params.sampling.temperature, submit.params.n_predict, submit.params.sampling.seed) == (0.5, 7, 3)


REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"response_format": form}, "response_format") for form in ("verbose_json", "srt", "vtt", "diarized_json")),
    ({"response_format": "text", "stream": True}, "response_format"),
    ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
    ({"include": ["logprobs"]}, "include"),
    ({"chunking_strategy": "auto"}, "chunking_strategy"),
    ({"keywords": ["a"]}, "keywords"),
    ({"languages": ["a"]}, "languages"),
    ({"known_speaker_names": ["a"]}, "known_speaker_names"),
    ({"extra_body": {"temperature": "x"}}, "temperature"),
    ({"extra_body": {"max_tokens": "x"}}, "max_tokens"),
    ({"extra_body": {"stream": "x"}}, "stream"),
    ({"language": "x" * 65}, "language"),
]


def test_what_is_refused_names_its_field() -> None:
    async def talk() -> None:
        async with running(Heard(), BARE, media=FakeMediaDesk()) as server, openai(server) as api:
            for fields, named in REFUSED:
                with pytest.raises(BadRequestError, match=named):
                    await api.audio.transcriptions.create(**({"model": "m", "file": WAV} | fields))

    asyncio.run(talk())


def replies(*requests: dict[str, Any], client: FakeTextClient) -> list[httpx.Response]:
    async def talk() -> list[httpx.Response]:
        async with running(client, BARE, media=FakeMediaDesk()) as server:
            return [await _post(server, request) for request in requests]

    return asyncio.run(talk())


async def _post(server: Running[FakeTextClient], request: dict[str, Any]) -> httpx.Response:
    return await server.http.post(ROUTE, **request)


def test_a_request_is_a_form_with_one_file() -> None:
    wrong = [
        {"json": {"file": "x"}},
        {"files": {"file": (None, "text")}},
        {"files": {"other": WAV}},
        {"files": [("file", WAV), ("file", WAV)]},
    ]
    for reply in replies(*wrong, client=Heard()):
        assert (reply.status_code, "file" in reply.json()["detail"]) == (400, True), reply.text


def test_a_model_that_does_not_hear_says_which_option_would_be_right() -> None:
    deaf = replace(SEES_AND_HEARS, has_audio=False)
    for media in (None, deaf):
        [reply] = replies({"files": {"file": WAV}}, client=FakeTextClient(info=replace(INFO, media=media)))
        assert (reply.status_code, "--mmproj" in reply.json()["detail"]) == (501, True)
