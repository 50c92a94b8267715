"""Serving needs no disk: every route answers where no file can be made, as in a container with a read-only root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llamabox.server.hosted.abilities import Ability
from llamabox.server.routes import ROUTES
from tests.e2e.conftest import DEMO
from tests.e2e.server_process import ServerProcess
from tests.models.tiny_image import TinyImage

READ_ONLY = (
    "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    # The longest first, so that nothing is mounted over what is still to be turned.
    "for at in $(cut -d' ' -f5 /proc/self/mountinfo | sort -ru); do mount -o remount,bind,ro $at 2>/dev/null; done; "
    "for at in / /tmp /var/tmp /dev/shm $HOME $PWD; do "
    "if touch $at/.written 2>/dev/null; then echo $at can be written; exit 9; fi; done; "
    'exec "$@"', "sh",
)  # fmt: skip
"""Words before a command that give it a root on which nothing can be written."""

QUESTION = {
    "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "n_predict": 2, "max_tokens": 2,
    "content": "Hi", "tokens": [5], "input": "Hi", "query": "Hi", "documents": ["Hi", "Ho"],
    "input_prefix": "Hi", "input_suffix": "Ho",
}  # fmt: skip
"""Of every route with a JSON body."""

OFF = {"/infill": 501, "/v1/rerank": 501, "/v2/rerank": 501, "/v1/reranking": 501, "/rerank": 501, "/reranking": 501}
"""Routes that this model does not serve, and what they answer."""


def paths(method: str, *needs: Ability | None) -> list[str]:
    """Of the routes that need one of these abilities, but for those of one model or slot."""
    rows = [row for row in ROUTES if row.method == method and row.needs in needs]
    return list(dict.fromkeys(path for row in rows for path in row.paths if "{" not in path))


TEXT_GET = paths("GET", None, Ability.LANGUAGE, Ability.SHOW_SLOTS)
TEXT_POST = paths(
    "POST",
    *(Ability.GENERATE, Ability.LANGUAGE, Ability.INFILL, Ability.EMBED, Ability.RERANK, Ability.TOKENS),
)
EMBEDDING = paths("POST", Ability.EMBED)
IMAGE_GET = paths("GET", None, Ability.DRAW, Ability.SHOW_JOBS)
IMAGE_POST = paths("POST", Ability.DRAW)


def before() -> tuple[str, ...]:
    return READ_ONLY if os.geteuid() else tuple(word for word in READ_ONLY if word not in ("--user", "--map-root-user"))


@pytest.fixture(scope="module")
def texts(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It is all one what it says."""
    log = tmp_path_factory.mktemp("texts") / "log"
    saves = tmp_path_factory.mktemp("saves")
    words = (*DEMO, "-m", str(tiny_text), "-c", "512", "--slots", "--metrics", "--embeddings")
    with ServerProcess(log, *words, "--slot-save-path", str(saves), before=before()) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def images(tiny_image: TinyImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("images") / "log"
    files = ("-m", str(tiny_image.model), "--image-taesd-model", str(tiny_image.taesd))
    with ServerProcess(log, "--images", *files, "--slots", "--metrics", before=before()) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.mark.parametrize("path", TEXT_GET)
def test_questions_to_texts(texts: ServerProcess, path: str) -> None:
    assert texts.http.get(path).status_code == 200


@pytest.mark.parametrize("path", TEXT_POST)
@pytest.mark.parametrize("padding", [0, 3 << 20])
def test_texts(texts: ServerProcess, path: str, padding: int) -> None:
    """With a body of megabytes too, whichever way it is buffered."""
    question: dict[str, Any] = QUESTION
    if path in EMBEDDING:  # these refuse what is not theirs
        question = {"input": "Hi"}
    elif "/responses" in path:
        question = {"input": "Hi", "max_output_tokens": 16}
    reply = texts.http.post(path, json={**question, "user": "x" * padding})
    assert reply.status_code == OFF.get(path, 200), reply.text


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"grammar": 'root ::= "a" | "b"'},
        {"stream": True},
        {"chat_template_kwargs": {"a": 1}},
    ],
)
def test_what_other_processes_are_asked_for(texts: ServerProcess, fields: dict[str, Any]) -> None:
    """Grammars and templates are tried in quarantine."""
    assert texts.http.post("/v1/chat/completions", json={**QUESTION, **fields}).status_code == 200


def test_a_slot_that_cannot_be_saved_says_why(texts: ServerProcess) -> None:
    """The one thing that is for the disk."""
    texts.ok("/completion", QUESTION)
    reply = texts.post("/slots/0?action=save", {"filename": "a.bin"})
    assert reply.status_code in (500, 503)
    assert "Read-only file system" in reply.json()["detail"]
    assert texts.health() == 200


@pytest.mark.parametrize("path", IMAGE_GET)
def test_questions_to_images(images: ServerProcess, path: str) -> None:
    assert images.http.get(path).status_code == 200


@pytest.mark.parametrize("path", IMAGE_POST)
def test_images(images: ServerProcess, path: str) -> None:
    """An upload of megabytes, whichever way it is buffered."""
    noise = BytesIO()
    Image.frombytes("RGB", (1024, 1024), os.urandom(3 << 20)).save(noise, "PNG")
    assert noise.tell() > 2 << 20
    fields = {"prompt": "a red circle on a blue background", "size": "256x256", "sample_steps": 1}
    if path.endswith("edits"):
        reply = images.http.post(path, data=fields, files={"image": ("a.png", noise.getvalue(), "image/png")})
    else:
        reply = images.http.post(path, json={**fields, "user": "x" * (3 << 20)})
    assert reply.status_code == 200, reply.text
