"""A picture that comes again is neither encoded nor computed again; another one is never taken for it."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.media.conftest import Start
from tests.e2e.media.parts import SYSTEM, image, secret, sound, user
from tests.e2e.server_process import ServerProcess

N_CELLS = 16
"""Of a picture."""

ENDS = 2
"""Tokens at a prompt's end that are computed in any case: what follows hangs on them."""


def ask(server: ServerProcess, messages: list[dict[str, Any]], **fields: Any) -> tuple[str, int, int]:
    """(the answer, tokens of the prompt, those that were cached)."""
    asked = {"messages": [SYSTEM, *messages], "temperature": 0, "max_tokens": 16, **fields}
    reply = server.ok("/v1/chat/completions", asked)
    usage = reply["usage"]
    text = reply["choices"][0]["message"]["content"]
    return text, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def encoded(server: ServerProcess) -> float:
    """Encodings so far."""
    found = re.search(r"^llamabox:media_encodings_total (\S+)", server.http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_a_second_question_computes_its_own_words_alone(server: ServerProcess) -> None:
    picture = image("purple", "yellow")
    first, n_prompt, n_cached = ask(server, [user(picture, "Describe the image.")])
    assert "purple" in first
    assert n_cached < n_prompt - N_CELLS
    before = encoded(server)
    second, n_prompt, n_cached = ask(server, [user(picture, "What color is the background?")])
    assert "yellow" in second
    assert n_cached > N_CELLS
    assert n_prompt - n_cached < N_CELLS
    assert ask(server, [user(picture, "Describe the image.")])[0] == first
    assert encoded(server) == before


def test_on_another_slot_too(server: ServerProcess) -> None:
    picture, recording = image("cyan", "brown"), sound(secret("seven"))
    chat = [user(picture, recording, "Repeat what you see and hear.")]
    first, n_prompt, _ = ask(server, chat, id_slot=0)
    before = encoded(server)
    for slot in (1, 2):
        text, _, n_cached = ask(server, chat, id_slot=slot)
        assert (text, n_prompt - n_cached <= ENDS) == (first, True)
    assert encoded(server) == before


def test_another_picture_of_the_size_is_another(server: ServerProcess) -> None:
    for figure in ("red", "green", "blue", "red", "green"):
        assert f"{figure} square" in ask(server, [user(image(figure, "black"), "Describe the image.")])[0]


def test_a_slot_file_holds_pictures_over_a_restart(server: ServerProcess, start: Start) -> None:
    chat = [user(image("orange", "blue"), sound(secret("cat")), "Repeat what you see and hear.")]
    first, n_prompt, _ = ask(server, chat, id_slot=3)
    server.ok("/slots/3?action=save", {"filename": "media.bin"})
    with start() as again:
        before = encoded(again)
        again.ok("/slots/1?action=restore", {"filename": "media.bin"})
        text, _, n_cached = ask(again, chat, id_slot=1)
        assert (text, n_prompt - n_cached <= ENDS) == (first, True)
        assert encoded(again) == before
        other = [user(image("orange", "green"), sound(secret("cat")), "Repeat what you see and hear.")]
        text, _, n_cached = ask(again, other, id_slot=1)
        assert "green" in text
        assert n_cached < N_CELLS * 2
