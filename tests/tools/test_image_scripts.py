"""tools/image_*.sh against the app itself, over a fake worker: what they send, which files they write."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from llamabox.errors import Unavailable
from llamabox.imaging.events import Event, Queued
from llamabox.imaging.job import ImageJob
from tests.server.fake_images import FakeImageClient, drawing, png
from tests.server.harness import by_field, image_app, listening
from tests.tools.test_scripts import run

GENERATE, EDIT = "image_generate.sh", "image_edit.sh"


@dataclass
class Painter:
    client: FakeImageClient
    url: str


@contextmanager
def painting(client: FakeImageClient | None = None, **config: object) -> Iterator[Painter]:
    """The app in a thread for the length of the block."""
    ready = threading.Event()
    found: list[Painter] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        fake = client or FakeImageClient()
        listen, model = by_field(config)
        async with listening(image_app(fake, listen, model), fake, listen, within=60) as served:
            over = asyncio.Event()
            stop.append((asyncio.get_running_loop(), over))
            found.append(Painter(fake, f"http://127.0.0.1:{served.port}"))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop, over = stop[0]
        loop.call_soon_threadsafe(over.set)
        thread.join()


def written(done: CompletedProcess[str], folder: Path) -> list[Path]:
    """The files that it names, which are all that there are."""
    named = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(named) == sorted(folder.glob("*.png"))
    return named


def colour(path: Path) -> object:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.getpixel((0, 0))


def test_generate_once(tmp_path: Path) -> None:
    settings = {
        "N": "2", "SIZE": "256x320", "SEED": "7", "SAMPLER": "euler", "CFG_SCALE": "2.5", "SAMPLE_STEPS": "3",
        "NEGATIVE_PROMPT": 'ugly "$HOME"', "API_KEY": "k-1",
    }  # fmt: skip
    with painting(api_keys=frozenset({"k-1"})) as server:
        done = run(GENERATE, server, 'a "red" cat & $PATH', OUTPUT_DIR=str(tmp_path), **settings)
    assert done.returncode == 0, done.stderr
    assert [colour(path) for path in written(done, tmp_path)] == [(0, 0, 7), (0, 0, 8)]
    [job] = server.client.jobs
    assert (job.prompt, job.negative_prompt) == ('a "red" cat & $PATH', 'ugly "$HOME"')
    assert (job.n, job.width, job.height, job.seed) == (2, 256, 320, 7)
    assert (job.sampler, job.cfg_scale, job.steps) == ("euler", 2.5, 3)
    for part in ("image 0:  25%", "image 0: 100%", "image 1: 100%", "generation_per_second: 10"):
        assert part in done.stderr


def test_unset_settings_are_the_servers_and_quality_and_style_are_sent(tmp_path: Path) -> None:
    with painting() as server:
        done = run(GENERATE, server, "x", OUTPUT_DIR=str(tmp_path), QUALITY="hd", STYLE="vivid")
    assert done.returncode == 0, done.stderr
    [job] = server.client.jobs
    assert (job.sampler, job.steps, job.cfg_scale, job.extra_steps) == (None, None, None, 10)
    assert job.negative_prompt == "low quality and not vivid"


@pytest.mark.parametrize("script", [GENERATE, EDIT])
def test_a_picture_for_each_line(script: str, tmp_path: Path) -> None:
    (tmp_path / 'a "b";c.jpg').write_bytes(png("red"))
    out = tmp_path / "out"
    out.mkdir()
    env = {"OUTPUT_DIR": str(out), "IMAGE": str(tmp_path / 'a "b";c.jpg'), "SEED": "5"}
    with painting() as server:
        done = run(script, server, stdin="one\n\ntwo", **env)
    assert done.returncode == 0, done.stderr
    assert [job.prompt for job in server.client.jobs] == ["one", "two"]
    assert len(written(done, out)) == 2


def test_edit_once(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(png("red"))
    (tmp_path / "mask.jpg").write_bytes(png("white"))
    env = {"IMAGE": str(tmp_path / "image.jpg"), "MASK": str(tmp_path / "mask.jpg"), "OUTPUT_DIR": str(tmp_path)}
    settings = {
        "N": "2",
        "SIZE": "256x256",
        "SEED": "9",
        "SAMPLE_STEPS": "3",
        "NEGATIVE_PROMPT": "@ugly;x",
        "QUALITY": "hd",
    }
    with painting() as server:
        done = run(EDIT, server, "<a hat", **env, **settings)
    assert done.returncode == 0, done.stderr
    assert [colour(path) for path in written(done, tmp_path)] == [(0, 0, 9), (0, 0, 10)]
    [job] = server.client.jobs
    assert (job.prompt, job.negative_prompt, job.n, job.steps) == ("<a hat", "@ugly;x and low quality", 2, 3)
    assert job.init is not None
    assert job.mask is not None
    assert job.init.data[:3] == bytes((255, 0, 0))
    assert "image 1: 100%" in done.stderr


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    for script, more in ((GENERATE, {}), (EDIT, {"image": base64.b64encode(png("lime")).decode()})):
        for stream in (False, True):
            out = tmp_path / f"{script}{stream}"
            out.mkdir()
            body.write_text(json.dumps({"prompt": "a", "seed": 3, "n": 2, "stream": stream, **more}))
            with painting() as server:
                done = run(script, server, f"@{body}", OUTPUT_DIR=str(out))
            assert done.returncode == 0, done.stderr
            assert [colour(path) for path in written(done, out)] == [(0, 0, 3), (0, 0, 4)]


def test_the_place_in_the_queue_is_told_and_the_log_has_everything(tmp_path: Path) -> None:
    def late(job: ImageJob) -> list[Event]:
        return [Queued(job.request_id, 2), *drawing(job)]

    log = tmp_path / "log"
    with painting(FakeImageClient(late)) as server:
        done = run(GENERATE, server, "x", OUTPUT_DIR=str(tmp_path), LOG_FILE=str(log))
    assert "queued, place 2" in done.stderr
    assert '"prompt":"x"' in log.read_text()
    assert "data: [DONE]" in log.read_text()


def test_errors_before_and_after_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"no picture")
    env = {"IMAGE": str(tmp_path / "image.jpg"), "OUTPUT_DIR": str(tmp_path)}

    def failing(job: ImageJob) -> list[Event]:
        return drawing(job)[:3]

    breaking = FakeImageClient(failing)
    breaking.after = Unavailable("the worker ended")
    for script, client, env_more, part in (
        (GENERATE, FakeImageClient(), {"N": "9"}, "error: Field 'n'"),
        (EDIT, FakeImageClient(), {}, "error: Field 'image'"),
        (GENERATE, breaking, {}, "error: the worker ended"),
    ):
        with painting(client) as server:
            done = run(script, server, "x", **env, **env_more)
        assert part in done.stderr
        assert done.returncode == 1
        assert written(done, tmp_path) == []


@pytest.mark.parametrize("script", [GENERATE, EDIT])
def test_usage_and_what_is_missing(script: str, tmp_path: Path) -> None:
    nobody = Painter(FakeImageClient(), "http://127.0.0.1:9")
    done = run(script, nobody, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{script} [PROMPT | @FILE]" in done.stdout
    assert run(script, nobody, "two", "words").returncode == 1
    assert "cannot read" in run(script, nobody, f"@{tmp_path}/none").stderr
    (tmp_path / "image.png").write_bytes(png("red"))
    done = run(script, nobody, "x", IMAGE=str(tmp_path / "image.png"))
    assert (done.returncode, "no answer from http://127.0.0.1:9" in done.stderr) == (1, True)


def test_edit_needs_a_picture(tmp_path: Path) -> None:
    nobody = Painter(FakeImageClient(), "http://127.0.0.1:9")
    assert "IMAGE=FILE" in run(EDIT, nobody, "x", IMAGE="").stderr
    assert "cannot read" in run(EDIT, nobody, "x", IMAGE=str(tmp_path / "none.png")).stderr
