"""Vectors of pictures and sound by the real server: each form gives the same one, whatever is asked beside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
from numpy.typing import NDArray

from tests.e2e.media.parts import image, png, secret, sound, text_of, user
from tests.e2e.server_process import ServerProcess

Floats = NDArray[np.float32]


def vectors(server: ServerProcess, **body: Any) -> Floats:
    return np.array([item["embedding"] for item in server.ok("/v1/embeddings", body)["data"]], np.float32)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_each_form_of_an_input_gives_one_vector(server: ServerProcess, client: openai.OpenAI) -> None:
    marker = server.http.get("/props").json()["media_marker"]
    parts = [text("A picture: "), image("red", "blue"), text(" and a sound: "), sound(secret("cat"))]
    media = [text_of(png("red", "blue")), text_of(secret("cat"))]
    native = {"prompt_string": f"A picture: {marker} and a sound: {marker}", "multimodal_data": media}
    expected, other, again = vectors(
        server, input=[{"content": parts}, {"content": [*parts[:1], image("green", "blue"), *parts[2:]]}, native]
    )
    assert abs(np.linalg.norm(expected) - 1) < 1e-5
    assert np.array_equal(again, expected)
    assert expected @ other < 0.9999, "another picture is another vector"
    chat = server.ok("/apply-template", {"messages": [user(*parts)], "add_generation_prompt": False})["prompt"]
    written = vectors(server, input={"prompt_string": chat, "multimodal_data": media})
    assert np.array_equal(vectors(server, messages=[user(*parts)]), written)
    reply = client.embeddings.create(model="x", input=[{"content": parts}])  # type: ignore[list-item]
    assert np.allclose(reply.data[0].embedding, expected, atol=1e-6)
    assert reply.usage.prompt_tokens == server.ok("/v1/embeddings", {"input": native})["usage"]["prompt_tokens"]


def test_a_vector_does_not_depend_on_texts_and_streams_beside_it(server: ServerProcess) -> None:
    colours = (("red", "white"), ("cyan", "black"))
    inputs: list[Any] = [{"content": [text("On a wall: "), image(*pair)]} for pair in colours]
    alone = [vectors(server, input=one)[0] for one in inputs]
    chat = {"messages": [user("Say something long.")], "max_tokens": 60, "temperature": 0}
    quiet = server.ok("/v1/chat/completions", chat)["choices"][0]["message"]["content"]
    with ThreadPoolExecutor() as threads:
        streams = [threads.submit(server.ok, "/v1/chat/completions", chat) for _ in range(2)]
        mixed = threads.submit(vectors, server, input=["a text", *inputs, "another"] * 4)
        found = mixed.result()
        assert all(one.result()["choices"][0]["message"]["content"] == quiet for one in streams)
    for i, vector in enumerate(alone):
        assert all(vector @ found[4 * at + 1 + i] > 0.999 for at in range(4))


def test_a_picture_that_cannot_be_read_is_named(server: ServerProcess) -> None:
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    inputs = ["a", {"content": [image("red", "blue"), text("x")]}, {"content": [broken]}]
    reply = server.post("/v1/embeddings", {"input": inputs})
    assert reply.status_code == 400
    assert "input[2].content[0].image_url.url" in reply.json()["error"]["message"]
