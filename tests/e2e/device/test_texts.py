"""The demo model's greedy texts, wherever its layers are and however many are written at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llamabox.demo import ensure_demo_model
from tests.e2e.device.asking import PROMPTS, Device, Steps, assert_same_or_near_tie, steps
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.device

N_PREDICT = 5


@pytest.fixture(scope="module")
def demo() -> Path:
    """Thirty layers, heads of 64."""
    return ensure_demo_model(progress=False)


def texts(server: ServerProcess, n_at_once: int) -> list[Steps]:
    """What is said to each of the 16 prompts."""
    with ThreadPoolExecutor(n_at_once) as pool:
        return list(pool.map(lambda prompt: steps(server, prompt, N_PREDICT), PROMPTS))


@pytest.fixture(scope="module")
def alone(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Steps]]:
    """The CPU's texts, each written by itself."""
    log = tmp_path_factory.mktemp("cpu") / "log"
    with ServerProcess(log, "-m", str(demo), "-dev", "none", "-c", "512", "-np", "1") as server:
        yield texts(server, 1)


@pytest.mark.parametrize("n_slots", [1, 4])
@pytest.mark.parametrize("n_layers", ["0", "10", "all"])
def test_sixteen_texts_are_the_cpu_s_but_for_near_ties(
    device: Device, demo: Path, tmp_path: Path, alone: list[Steps], n_layers: str, n_slots: int
) -> None:
    words = ("-ngl", n_layers, "-c", str(512 * n_slots), "-np", str(n_slots))
    with ServerProcess(tmp_path / "log", "-m", str(demo), *words) as server:
        split = server.http.get("/v1/models").json()["data"][0]["meta"]["split"]
        here = sum(part["n_layers"] for part in split if part["device"] == device.name)
        assert here == {"0": 0, "10": 10, "all": 31}[n_layers], split
        said = texts(server, n_slots)
        assert "KV ledger" not in server.log
    n_same = sum(assert_same_or_near_tie(got, cpu) for got, cpu in zip(said, alone, strict=True))
    assert n_same >= 10, f"only {n_same} of {len(PROMPTS)} texts are equal"
