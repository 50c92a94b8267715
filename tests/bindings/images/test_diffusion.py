"""libstable-diffusion itself: what it exports, what it says of itself, and its callbacks. Each in a process apart."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from llamabox.artifacts.manifest import MANIFEST
from llamabox.bindings import prefix as prefixes
from llamabox.errors import ModelLoadError, NativeMissing
from tests.models.tiny_image import TinyImage

Result = TypeVar("Result")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Calls a function of this module in the child."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def test_its_ggml_is_its_own_affair() -> None:
    """libllama's has the same names and other structs."""
    library = prefixes.packaged() / "libstable-diffusion.so"
    listed = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert "generate_image" in names
    assert {name for name in names if name.startswith(("ggml_", "gguf_"))} == set()


def test_a_prefix_without_it_says_so(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 1, "module": "x", "files": {}}')
    with pytest.raises(NativeMissing, match="built without images"):
        assert prefixes.read(tmp_path).images


def test_a_text_worker_does_not_check_what_it_does_not_load() -> None:
    prefix = prefixes.read()
    assert not any("diffusion" in name for name in prefix.manifest["files"])
    assert {name for name in prefix.images.manifest["files"] if "diffusion" in name} == set(
        prefix.images.manifest["files"]
    )


def _names() -> tuple[dict[str, int], dict[str, int], str, list[str]]:
    from llamabox.bindings.ffi import load_images
    from llamabox.bindings.images import diffusion

    native = load_images()
    maps = Path("/proc/self/maps")
    mapped = maps.read_text() if maps.exists() else ""
    foreign = [name for name in ("libllama.so", "libggml-base.so") if name in mapped]
    return diffusion.samplers(native), diffusion.schedules(native), diffusion.version(native), foreign


def test_it_knows_llama_boxs_names_and_loads_nothing_of_libllama(run: Run) -> None:
    samplers, schedules, version, foreign = run(_names)
    multistep = {"dpm2", "dpm++2s_a", "dpm++2m", "dpm++2mv2", "ipndm", "ipndm_v"}
    assert {"euler_a", "euler", "heun", "lcm", *multistep} <= set(samplers)
    assert {"discrete", "karras", "exponential", "ays", "gits"} <= set(schedules)
    assert version not in ("", "unknown")
    assert foreign == []


def _load(model: str, taesd: str | None) -> list[float]:
    from llamabox.bindings.ffi import load_images
    from llamabox.bindings.images.diffusion import Diffusion
    from llamabox.bindings.images.params import LoadParams

    parts: list[float] = []
    with Diffusion(load_images(), LoadParams(model=model, taesd=taesd), parts.append) as loaded:
        assert loaded.default_sampler == "euler"
        assert loaded.default_schedule("lcm") == "lcm"
        assert not loaded.cancel() or loaded.can_cancel
    assert not loaded.cancel()
    loaded.close()
    return parts


def test_loading_tells_how_far_it_is(run: Run, tiny_image: TinyImage) -> None:
    parts = run(_load, str(tiny_image.model), str(tiny_image.taesd))
    assert parts == sorted(set(parts))
    assert 0 < parts[0] <= parts[-1] <= 1


def test_a_model_that_does_not_load_names_the_librarys_reason(run: Run, tiny_image: TinyImage) -> None:
    with pytest.raises(ModelLoadError, match=r"tiny-image-tae\.gguf cannot be loaded: \w+"):
        run(_load, str(tiny_image.taesd), None)


class Interrupted(Exception):
    """Raised by a callback."""


def _interrupt(tiny: TinyImage) -> tuple[str, int, list[str]]:
    from llamabox.bindings.ffi import load_images
    from llamabox.bindings.images.diffusion import Diffusion
    from llamabox.bindings.images.params import DrawParams, LoadParams, Watch
    from llamabox.bindings.log import LogPump

    native, lines = load_images(), []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("diffusion-test")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Keep())
    params = DrawParams(
        prompt="red", negative_prompt="", width=64, height=64, seed=1, sampler="euler", schedule="discrete", steps=3,
        cfg_scale=1.0, guidance=3.5, strength=0.75,
    )  # fmt: skip

    def fail(step: int, _steps: int) -> None:
        raise Interrupted(f"at {step}")

    load = LoadParams(model=str(tiny.model), taesd=str(tiny.taesd), n_threads=1)
    with LogPump(native, logger), Diffusion(native, load, lambda _: None) as loaded:
        try:
            loaded.draw(params, Watch(fail, lambda *_: None))
            said = ""
        except Interrupted as exc:
            said = str(exc)
        steps: list[int] = []
        loaded.draw(params, Watch(lambda step, _: steps.append(step), lambda *_: None))
    return said, len(steps), lines


def test_what_a_callback_raises_comes_out_of_the_call_and_harms_no_other(run: Run, tiny_image: TinyImage) -> None:
    said, n_steps, lines = run(_interrupt, tiny_image)
    assert said == "at 0"
    assert n_steps == 4
    assert any("generating image" in line for line in lines)


def _edges() -> tuple[int, int]:
    from llamabox.bindings.ffi import load_images
    from llamabox.bindings.images import diffusion
    from llamabox.bindings.images.params import Picture

    half = bytes(32 * 3) + bytes([255]) * 32 * 3
    found = diffusion.edges(load_images(), Picture(64, 64, 3, half * 64))
    row = found.data[32 * 64 * 3 : 33 * 64 * 3 : 3]
    return max(row[28:36]), max((*row[8:24], *row[40:56]))


def test_edges_are_where_a_picture_changes(run: Run) -> None:
    at_the_edge, elsewhere = run(_edges)
    assert at_the_edge > 100
    assert elsewhere == 0


def test_libraries_beside_each_other_do_not_meet(tiny_image: TinyImage) -> None:
    """Not done by the server, but what a mistake would do: both in one process."""
    code = """
import sys
from tests.bindings.images.test_diffusion import _load
from llamabox.bindings.ffi import load
load()
_load(*sys.argv[1:])
print('done')
"""
    command = [sys.executable, "-c", code, str(tiny_image.model), str(tiny_image.taesd)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr
