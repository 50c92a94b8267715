"""A real server draws with a tiny model whose pictures can be checked: middle and corners have the asked colours."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, wait_for
from tests.media.files import BAD, GOOD
from tests.models.tiny_image import COLOURS, TinyImage
from tests.models.tiny_image_parts import write_lora
from tests.tools.test_scripts import run

GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
SIZE = {"size": "256x256", "sample_steps": 1}
"""The least that the server draws, which takes seconds: so no more of them than there are things to show."""

CHOSEN = re.compile("job [0-9]+ is cancelled|the worker is restarted: the client of job [0-9]+ left")
"""How a job of many steps ends that nobody wants: within a step, or with its worker."""


@pytest.fixture(scope="module")
def server(tiny_image: TinyImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("images") / "log"
    files = ("-m", str(tiny_image.model), "--image-taesd-model", str(tiny_image.taesd))
    with ServerProcess(log, "--images", *files, "--slots", "--metrics", "-np", "3") as running:
        yield running
        assert running.health() == 200
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asking:
        yield asking


def opened(text: str | None) -> Image.Image:
    picture = Image.open(BytesIO(base64.b64decode(text or "")))
    assert picture.format == "PNG"
    return picture


def assert_shows(picture: Image.Image, figure: str, ground: str) -> None:
    """The nearest of the model's colours, for the middle and each corner."""
    width, height = picture.size
    places = {(width // 2, height // 2): figure}
    places |= {(x, y): ground for x in (6, width - 7) for y in (6, height - 7)}
    for place, asked in places.items():
        pixel = picture.convert("RGB").getpixel(place)
        assert isinstance(pixel, tuple)
        seen = [channel / 127.5 - 1 for channel in pixel]
        distance = {
            name: sum((a - b) ** 2 for a, b in zip(seen, colour, strict=True)) for name, colour in COLOURS.items()
        }
        assert COLOURS[min(distance, key=distance.__getitem__)] == COLOURS[asked], (place, pixel)


def prompt(figure: str, shape: str, ground: str) -> str:
    return f"a {figure} {shape} on a {ground} background"


def test_it_draws_what_it_is_asked_for_and_a_seed_the_same_again(client: openai.OpenAI) -> None:
    """Other words: tests/imaging/test_pipeline.py."""

    def drawn(seed: int, n: int = 1) -> list[str | None]:
        extra = {"sample_steps": 1, "seed": seed}
        asked = prompt("green", "square", "white")
        reply = client.images.generate(prompt=asked, n=n, size="256x256", response_format="b64_json", extra_body=extra)
        return [image.b64_json for image in reply.data or []]

    first, second = drawn(40, 2)
    for image in (first, second):
        assert_shows(opened(image), "green", "white")
    assert first != second
    assert drawn(41) == [second]


def test_an_odd_size_by_a_sampler_that_the_server_names(server: ServerProcess, client: openai.OpenAI) -> None:
    """The model knows where its shapes are at 256x256 only: so none is asked for. All samplers: test_pipeline.py."""
    meta = server.http.get("/v1/models").json()["data"][0]["meta"]
    assert {"euler", "lcm", "dpm++2m"} <= set(meta["samplers"])
    more = {"sample_steps": 2, "sampler": "lcm"}
    [image] = client.images.generate(prompt="red", size="263x257", extra_body=more).data or []
    picture = opened(image.b64_json)
    assert picture.size == (263, 257)
    assert "Sampler: lcm" in picture.info["parameters"]
    assert_shows(picture, "red", "red")


def test_the_client_reads_a_stream_with_pictures_on_the_way(client: openai.OpenAI) -> None:
    words = ("red", "circle", "blue")
    more = {"sample_steps": 3, "seed": 5}
    kinds: list[str] = []
    with client.images.generate(
        prompt=prompt(*words), n=2, size="256x256", stream=True, partial_images=1, extra_body=more
    ) as stream:
        for event in stream:
            kinds.append(event.type.rpartition(".")[2])
            if kinds[-1] != "progress":
                assert opened(event.b64_json).size[0] > 0
            if event.type == "image_generation.completed":
                assert_shows(opened(event.b64_json), words[0], words[2])
    assert (kinds.count("partial_image"), kinds.count("completed")) == (2, 2)


def test_an_edit_with_a_mask(client: openai.OpenAI) -> None:
    """This model draws over whatever the picture holds, so all that can be seen is that the prompt is followed."""
    image, mask = ("a.png", GOOD["alpha"](), "image/png"), ("m.png", GOOD["1x1"](), "image/png")
    words = ("yellow", "square", "blue")
    reply = client.images.edit(
        image=image, mask=mask, prompt=prompt(*words), size="256x256", extra_body={"sample_steps": 1, "strength": 1}
    )
    [one] = reply.data or []
    assert opened(one.b64_json).size == (256, 256)


def test_progress_rises_to_100_and_the_usage_is_there_once(server: ServerProcess) -> None:
    chunks = list(server.stream(GENERATE, {"prompt": "red", "n": 2, "size": "256x256", "sample_steps": 2}))
    for index in (0, 1):
        entries = [chunk["data"][0] for chunk in chunks if chunk["data"][0]["index"] == index]
        told = [entry["progress"] for entry in entries]
        assert told == sorted(told)
        assert told[-1] == 100 > told[-2]
        assert [entry["progressed_steps"] for entry in entries[:-1]][-2:] == [1, 2]
        assert [entry["finish_reason"] for entry in entries] == [None] * (len(entries) - 1) + ["stop"]
    assert [chunk["usage"] is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(value > 0 for value in chunks[-1]["usage"].values())


@pytest.mark.parametrize(
    "body",
    [
        {"size": "255x256"}, {"size": "100000x1"}, {"n": 0}, {"n": 5}, {"sample_steps": 0},
        {"sampler": "dpm9"}, {"schedule": "never"}, {"response_format": "url"}, {"prompt": None}, {"cfg_scale": 0},
        {"seed": 2**64}, {"lora": [{"id": 0, "scale": 1}]},
    ],
    ids=str,
)  # fmt: skip
def test_limits(server: ServerProcess, body: dict[str, Any]) -> None:
    reply = server.post(GENERATE, {"prompt": "red", **SIZE, **body})
    assert reply.status_code == 400
    [field] = body
    assert f"'{field}" in reply.json()["detail"]


@pytest.mark.parametrize("kind", BAD)
def test_broken_pictures(server: ServerProcess, kind: str) -> None:
    reply = server.http.post(EDIT, files={"image": ("a.png", BAD[kind]())}, data={"prompt": "red"})
    assert (reply.status_code, "'image'" in reply.json()["detail"]) == (400, True)


def test_an_odd_picture(server: ServerProcess) -> None:
    """How others are read: tests/media/decoding/test_pictures.py."""
    data = {"prompt": "red", "size": "256x256", "sample_steps": "1", "strength": "0.5"}
    reply = server.http.post(EDIT, files={"image": ("a.png", GOOD["1x10000"]())}, data=data)
    assert reply.status_code == 200, reply.text
    assert opened(reply.json()["data"][0]["b64_json"]).size == (256, 256)


def test_who_waits_is_told_and_one_too_many_comes_back_later(server: ServerProcess) -> None:
    """One is drawn and three wait; all go, and the next is served."""
    long = {"prompt": "red", "size": "256x256", "sample_steps": 200, "stream": True}
    begun = len(server.log)
    with httpx.Client(base_url=server.url, timeout=120) as http:
        streams = [http.stream("POST", GENERATE, json=long) for _ in range(4)]
        lines = []
        for place, stream in enumerate(streams):
            reply = stream.__enter__()
            lines.append(reply.iter_lines())
            first = next(lines[-1])
            assert first == (": drawing" if place == 0 else f": queued, place {place}")
        full = server.post(GENERATE, {"prompt": "red"})
        assert (full.status_code, full.json()["error"]["type"]) == (503, "unavailable_error")
        assert int(full.headers["retry-after"]) >= 1
        slots = server.http.get("/slots").json()
        assert [slot["is_processing"] for slot in slots] == [True] * 4
        assert (metric(server, "llamacpp:requests_processing"), metric(server, "llamacpp:requests_deferred")) == (1, 3)
        assert next(line for line in lines[0] if line.startswith("data: "))
        for stream in reversed(streams):
            stream.__exit__(None, None, None)
    wait_for(lambda: CHOSEN.search(server.log[begun:]) is not None, "the job that nobody wants is dealt with")
    reply = server.ok(GENERATE, {"prompt": prompt("red", "circle", "blue"), **SIZE})
    assert_shows(opened(reply["data"][0]["b64_json"]), "red", "blue")
    assert server.log[begun:].count("its client left while it waited") == 3


def test_the_next_is_drawn_when_the_one_before_it_is_left(server: ServerProcess) -> None:
    """It waits meanwhile, and does not notice how the other one ends: which would take many minutes by itself."""
    long = {"prompt": "red", "size": "256x256", "sample_steps": 400, "stream": True}
    pictures: list[Image.Image] = []

    def wait() -> None:
        reply = server.ok(GENERATE, {"prompt": prompt("cyan", "circle", "black"), **SIZE})
        pictures.append(opened(reply["data"][0]["b64_json"]))

    waiting = threading.Thread(target=wait)
    with httpx.stream("POST", f"{server.url}{GENERATE}", json=long, timeout=120) as reply:
        steps = (line for line in reply.iter_lines() if "progressed_steps" in line)
        assert [next(steps) for _ in range(2)]
        waiting.start()
        wait_for(lambda: metric(server, "llamacpp:requests_deferred") == 1, "the other one waits")
    waiting.join(60)
    assert_shows(pictures[0], "cyan", "black")


def test_a_worker_that_is_killed_costs_its_own_job_only(server: ServerProcess) -> None:
    begun, told = threading.Event(), []

    def read() -> None:
        body = {"prompt": "blue", "size": "256x256", "sample_steps": 300, "stream": True}
        with httpx.stream("POST", f"{server.url}{GENERATE}", json=body, timeout=120) as reply:
            for line in reply.iter_lines():
                told.append(line)
                if line.startswith("data: "):
                    begun.set()

    wait_for(lambda: server.health() == 200, "the model is there")
    reading = threading.Thread(target=read)
    reading.start()
    assert begun.wait(60)
    worker = server.worker_pid("image")
    assert "libstable-diffusion" in Path(f"/proc/{worker}/maps").read_text()
    os.kill(worker, signal.SIGKILL)
    reading.join(60)
    [spelled, data] = [line for line in told if line][-2:]
    assert spelled.startswith("error: {")
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "unavailable_error"
    assert "data: [DONE]" not in told
    wait_for(lambda: server.health() == 200, "the model is loaded again")
    assert server.worker_pid("image") != worker
    reply = server.ok(GENERATE, {"prompt": prompt("green", "square", "red"), **SIZE})
    assert_shows(opened(reply["data"][0]["b64_json"]), "green", "red")
    assert "libstable-diffusion" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_the_scales_of_adapters_are_the_servers_and_outlive_a_worker(tiny_image: TinyImage, tmp_path: Path) -> None:
    adapter = str(write_lora(tmp_path / "green.safetensors"))
    words = ("-m", str(tiny_image.model), "--image-taesd-model", str(tiny_image.taesd), "--lora", adapter)
    with ServerProcess(tmp_path / "log", "--images", *words, "--metrics") as server:

        def assert_draws(colour: str, **fields: Any) -> None:
            reply = server.ok(GENERATE, {"prompt": "red", **SIZE, **fields})
            assert_shows(opened(reply["data"][0]["b64_json"]), colour, colour)

        def assert_holds(scale: float) -> None:
            assert server.http.get("/lora-adapters").json() == [{"id": 0, "path": adapter, "scale": scale}]

        assert_holds(1.0)
        assert_draws("yellow")
        assert_draws("red", lora=[])
        assert server.post("/lora-adapters", [{"id": 0, "scale": 0}]).json() == {"success": True}
        assert_holds(0.0)
        os.kill(server.worker_pid("image"), signal.SIGKILL)
        wait_for(lambda: metric(server, "llamabox:worker_restarts_total") == 1, "its end is noticed")
        wait_for(lambda: server.health() == 200, "the model is loaded again")
        assert_holds(0.0)
        assert_draws("red")
        assert_draws("yellow", lora=[{"id": 0, "scale": 1}])


def test_a_language_model_runs_beside_it(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model), "--chat-template", "chatml", "-c", "512") as text:
        assert text.post(GENERATE, {"prompt": "red"}).status_code == 501
        answers: list[Any] = []
        ask = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
        talking = threading.Thread(
            target=lambda: answers.append(text.ok("/v1/chat/completions", ask | {"max_tokens": 24}))
        )
        talking.start()
        reply = server.ok(GENERATE, {"prompt": prompt("red", "circle", "blue"), **SIZE})
        talking.join(60)
    assert_shows(opened(reply["data"][0]["b64_json"]), "red", "blue")
    assert "Paris" in answers[0]["choices"][0]["message"]["content"]
    for path in ("/v1/chat/completions", "/completion", "/tokenize"):
        assert server.post(path, {"prompt": "a"}).status_code == 403


def test_the_shell_tools(server: ServerProcess, tmp_path: Path) -> None:
    """One by an argument, one by a line. All that they send: tests/tools/test_image_scripts.py."""
    words = "a red circle on a blue background"
    settings = {"SIZE": "256x256", "SAMPLE_STEPS": "1", "SEED": "1", "OUTPUT_DIR": str(tmp_path)}

    def drawn(done: CompletedProcess[str]) -> Path:
        assert done.returncode == 0, done.stderr
        path = Path(done.stdout.strip())
        with Image.open(path) as picture:
            assert picture.size == (256, 256)
        return path

    made = drawn(run("image_generate.sh", server, words, **settings))
    with Image.open(made) as picture:
        assert_shows(picture, "red", "blue")
    drawn(run("image_edit.sh", server, stdin=f"{words}\n", **settings, IMAGE=str(made)))
