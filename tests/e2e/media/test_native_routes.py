"""llama.cpp's own routes take media where their marker stands, and count them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.media.parts import SYSTEM, image, png, secret, sound, text_of, user
from tests.e2e.server_process import ServerProcess


@pytest.fixture(scope="module")
def marker(server: ServerProcess) -> str:
    return str(server.http.get("/props").json()["media_marker"])


def prompt(marker: str, question: str, *media: bytes) -> dict[str, Any]:
    turn = f"<|im_start|>user\n{marker * len(media)}{question}<|im_end|>\n<|im_start|>assistant\n"
    head = f"<|im_start|>system\n{SYSTEM['content']}<|im_end|>\n"
    return {"prompt_string": head + turn, "multimodal_data": [text_of(one) for one in media]}


def test_a_native_prompt_says_what_chat_says(server: ServerProcess, marker: str) -> None:
    chat = {"messages": [SYSTEM, user(image("red", "blue"), "Describe the image.")], "max_tokens": 16, "temperature": 0}
    said = server.ok("/v1/chat/completions", chat)
    native = {"prompt": prompt(marker, "Describe the image.", png("red", "blue")), "n_predict": 16, "temperature": 0}
    reply = server.ok("/completion", native)
    assert reply["content"] == said["choices"][0]["message"]["content"]
    assert reply["tokens_evaluated"] == said["usage"]["prompt_tokens"]
    assert server.ok("/v1/completions", {**native, "max_tokens": 16})["choices"][0]["text"] == reply["content"]
    streamed = "".join(event["content"] for event in server.stream("/completion", native))
    assert streamed == reply["content"]


def test_prompts_of_a_list_have_media_of_their_own(server: ServerProcess, marker: str) -> None:
    prompts = [
        prompt(marker, "Describe the image.", png("green", "white")),
        "I believe the meaning of life is",
        prompt(marker, "What is the secret word?", secret("Paris")),
    ]
    replies = server.ok("/completion", {"prompt": prompts, "n_predict": 16, "temperature": 0})
    assert "green square" in replies[0]["content"]
    assert "Paris" in replies[2]["content"]
    alone = server.ok("/completion", {"prompt": prompts[1], "n_predict": 16, "temperature": 0})
    assert replies[1]["content"] == alone["content"]


def test_a_picture_may_begin_a_prompt_or_end_it_or_be_all_of_it(server: ServerProcess, marker: str) -> None:
    """The first token behind a picture hangs on its last row."""
    file = text_of(png("red", "blue"))
    for text in (marker, marker * 2, f"{marker} Once upon a time", f"Look: {marker}"):
        body = {"prompt": {"prompt_string": text, "multimodal_data": [file] * text.count(marker)}, "n_predict": 4}
        first = server.ok("/completion", {**body, "temperature": 0, "cache_prompt": False})
        assert first["tokens_predicted"] == 4
        again = server.ok("/completion", {**body, "temperature": 0})
        assert again["content"] == first["content"]


def test_pieces_of_a_prompt_with_pictures_are_moved_or_left(server: ServerProcess, marker: str) -> None:
    """With `n_cache_reuse` what stands behind a dropped piece is moved, pictures among it."""
    words = "The ferryman counts his coins while the rain falls. "
    file = text_of(png("red", "blue"))
    turn = f"<|im_start|>user\n{marker}{words * 4}<|im_end|>\n<|im_start|>assistant\n"
    fields = {"n_predict": 8, "temperature": 0, "id_slot": 2, "n_cache_reuse": 16}
    for text in (words * 8 + turn, turn, words * 2 + turn + "Yes." + turn, turn):
        mixed = {"prompt_string": text, "multimodal_data": [file] * text.count(marker)}
        reply = server.ok("/completion", {"prompt": mixed, **fields})
        assert reply["tokens_predicted"] == 8


def test_counting_is_what_chat_is_charged(server: ServerProcess) -> None:
    body = {"messages": [SYSTEM, user(image("red", "blue"), "Hi", sound(secret("cat")))], "max_tokens": 1}
    counted = server.ok("/v1/chat/completions/input_tokens", body)["input_tokens"]
    assert counted == server.ok("/v1/chat/completions", body)["usage"]["prompt_tokens"]


def test_a_prompt_shown_to_users_can_be_sent_as_it_is(server: ServerProcess, marker: str) -> None:
    chat = {"messages": [SYSTEM, user("Describe the image.", image("red", "blue"))]}
    shown = server.ok("/apply-template", chat)["prompt"]
    assert shown.count(marker) == 1
    body = {"prompt": {"prompt_string": shown, "multimodal_data": [text_of(png("red", "blue"))]}, "n_predict": 1}
    counted = server.ok("/v1/chat/completions/input_tokens", chat)["input_tokens"]
    assert server.ok("/completion", body)["tokens_evaluated"] == counted


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/completion", {"prompt": {"prompt_string": "a", "multimodal_data": ["aGk="]}}, 400, "media markers"),
        ("/v1/embeddings", {"input": {"prompt_string": "a", "multimodal_data": ["aGk="]}}, 400, "media markers"),
        ("/v1/rerank", {"query": "a", "documents": [{"image": "aGk="}]}, 501, "--rerank"),
        ("/v1/chat/completions", {"messages": [user({"type": "video_url", "video_url": {"url": "x"}})]}, 400, "video"),
    ],
)
def test_what_cannot_be_is_refused(
    server: ServerProcess, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    reply = server.post(path, body)
    assert (reply.status_code, words in reply.json()["detail"]) == (status, True), reply.text


def test_more_than_fits_is_refused_with_the_numbers(server: ServerProcess) -> None:
    pictures = [image("red", "blue")] * 70
    reply = server.post("/v1/chat/completions", {"messages": [user(*pictures)], "max_tokens": 1})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 1024)
    assert error["n_prompt_tokens"] > 70 * 16
