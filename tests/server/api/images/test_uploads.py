"""Pictures to begin with: they reach the job at its size, and broken ones are a 400 that names the part."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.media.files import BAD, GOOD
from tests.server.fake_images import FakeImageClient, png
from tests.server.harness import image_app

EDIT = "/v1/images/edits"


@pytest.fixture(scope="module")
def client() -> FakeImageClient:
    return FakeImageClient()


@pytest.fixture(scope="module")
def http(client: FakeImageClient) -> Iterator[TestClient]:
    app = image_app(client)
    with TestClient(app) as http:
        yield http
    app.state.site.hosted.pictures.lane.close()


@pytest.mark.parametrize("kind", BAD)
def test_broken_ones_are_a_400_that_names_the_part(client: FakeImageClient, http: TestClient, kind: str) -> None:
    n_jobs = len(client.jobs)
    good = ("a.png", png("red"), "image/png")
    bad = ("a.png", BAD[kind](), "image/png")
    for part, files in (("image", {"image": bad}), ("mask", {"image": good, "mask": bad})):
        reply = http.post(EDIT, files=files, data={"prompt": "a cat"})
        assert reply.status_code == 400
        assert f"'{part}'" in reply.json()["detail"]
    assert len(client.jobs) == n_jobs


@pytest.mark.parametrize(
    "text",
    ["?", "a", "data:image/png;base64,", "data:image/png,abc", "äöü", "AAAA=AAAA", "https://x.example/a.png", "{}"],
)
def test_texts_that_are_no_picture(http: TestClient, text: str) -> None:
    reply = http.post(EDIT, json={"prompt": "a cat", "image": text})
    assert reply.status_code == 400
    assert "'image'" in reply.json()["detail"]


def test_base64_as_it_comes(client: FakeImageClient, http: TestClient) -> None:
    data = base64.b64encode(GOOD["BMP"]()).decode()
    lines = "\r\n".join(data[i : i + 76] for i in range(0, len(data), 76))
    for text in (data, data.rstrip("="), lines, f"data:image/png;base64,{data}", f"data:;base64,{data}"):
        assert http.post(EDIT, json={"prompt": "a cat", "image": text}).status_code == 200
        found = client.jobs[-1].init
        assert found is not None
        assert found.data == b"\xff\0\0" * (found.width * found.height)


def test_eleven_pictures_are_too_many(http: TestClient) -> None:
    data = base64.b64encode(png("red")).decode()
    for name in ("image", "image[]"):
        reply = http.post(EDIT, files=[(name, ("a.png", png("red")))] * 11, data={"prompt": "a"})
        assert reply.status_code == 400
        assert "'image': one picture is needed, not 11" in reply.json()["detail"]
    reply = http.post(EDIT, json={"prompt": "a", "image": [data] * 11})
    assert "'image': one picture is needed, not 11" in reply.json()["detail"]
