"""Texts about pictures are guessed like any, by the text itself and by a second model, and are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DEMO
from tests.e2e.media.parts import SYSTEM, assistant, image, user
from tests.e2e.server_process import ServerProcess

CHATS = (
    [user(image("red", "blue"), "Describe the image.")],
    [user("Describe both.", image("green", "white"), image("black", "yellow"))],
    [user(image("red", "blue"), "Describe the image."), assistant("A red square."), user("Say it again.")],
    [user(image("red", "blue"))],
)


@pytest.fixture(scope="module")
def guessing(model: Path, mmproj: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The model guesses for itself: all that it guesses is right."""
    words = ("-m", str(model), "-md", str(model), "-mm", str(mmproj), "-c", "4096", "-np", "4")
    with ServerProcess(tmp_path_factory.mktemp("server") / "log", *DEMO, *words) as server:
        yield server


def test_texts_are_those_without_drafts(guessing: ServerProcess) -> None:
    def ask(chat: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        body = {"messages": [SYSTEM, *chat], "max_tokens": 40, "temperature": 0, "ignore_eos": True, **fields}
        reply: dict[str, Any] = guessing.ok("/v1/chat/completions", body)
        return reply

    def text(reply: dict[str, Any]) -> str:
        return str(reply["choices"][0]["message"]["content"])

    plain = [text(ask(chat, **{"speculative.n_max": 0})) for chat in CHATS]
    alone = [ask(chat) for chat in CHATS]
    assert [text(one) for one in alone] == plain
    assert sum(one["timings"].get("draft_n", 0) for one in alone) > 0
    with ThreadPoolExecutor(len(CHATS)) as pool:
        assert [text(one) for one in pool.map(ask, CHATS * 2)] == plain * 2
