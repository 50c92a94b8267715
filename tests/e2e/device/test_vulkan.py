"""What can be made of a device of Vulkan's alone: it is listed twice, has less memory than it says, or is lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from native.build.libraries import compilers
from tests.e2e.device.asking import PROMPTS, Device, all_steps, assert_near
from tests.e2e.device.test_faults import ended, last_lines
from tests.e2e.server_process import ServerProcess

pytestmark = [pytest.mark.device, pytest.mark.vulkan]

SMALL = ("-c", "1024", "-np", "2", "-ngl", "all")


@pytest.mark.parametrize(
    "words",
    [("-sm", "layer", "-ts", "1,1"), ("-sm", "none", "-mg", "1"), ("-dev", "Vulkan1")],
    ids=" ".join,
)
def test_a_model_over_two_devices_says_the_same(
    device: Device, model: Path, tmp_path: Path, on_cpu: ServerProcess, words: tuple[str, ...]
) -> None:
    first = os.environ.get("GGML_VK_VISIBLE_DEVICES", "0").split(",")[0]
    env = {"GGML_VK_VISIBLE_DEVICES": f"{first},{first}"}
    with ServerProcess(tmp_path / "log", "-m", str(model), *SMALL, *words, env=env) as server:
        split = server.http.get("/v1/models").json()["data"][0]["meta"]["split"]
        layers = {part["device"]: part["n_layers"] for part in split}
        assert_near(all_steps(server, 2), all_steps(on_cpu, 1))
    assert layers.get("Vulkan1"), split


def test_a_split_by_rows_which_vulkan_does_not_have_ends_the_start_with_a_line(device: Device, model: Path) -> None:
    done = ended("-m", str(model), "-ngl", "all", "-sm", "row")
    assert done.returncode == 1
    assert f"device {device.name} does not support split buffers" in last_lines(done)


@pytest.mark.parametrize("limit", [1, 4])
def test_too_little_memory_ends_the_start_with_a_line(
    device: Device, model: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """For the weights, and for the cells of 65,536 tokens beside them."""
    monkeypatch.setenv("GGML_VK_FORCE_MAX_BUFFER_SIZE", str(limit << 20))
    done = ended("-m", str(model), "-ngl", "all", "-np", "1", "-c", "65536")
    assert done.returncode == 1, last_lines(done)
    assert "buffer" in last_lines(done)
    assert "Traceback" not in done.stderr


def test_a_device_that_is_lost_ends_what_ran_and_the_next_answer_is_right(
    device: Device, model: Path, tmp_path: Path, on_cpu: ServerProcess
) -> None:
    library, lost = tmp_path / "lost_device.so", tmp_path / "lost"
    compiler = compilers()["C"].split(": ")[0]
    source = Path(__file__).with_name("lost_device.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    env = {"LD_PRELOAD": str(library), "LOST_DEVICE": str(lost)}
    with ServerProcess(tmp_path / "log", "-m", str(model), *SMALL, env=env) as server:
        worker = server.worker_pid()
        body = {"prompt": PROMPTS[0], "n_predict": 500, "ignore_eos": True, "temperature": 0, "speculative.n_max": 0}
        stream = server.stream("/completion", body)
        next(stream)
        lost.touch()
        *_, last = stream
        assert last["error"]["code"] in (500, 503), last
        lost.unlink()
        server.wait_ready()
        assert server.worker_pid() != worker
        assert_near(all_steps(server, 2), all_steps(on_cpu, 1))
        assert "DeviceLost" in server.log, "the log says what happened"
