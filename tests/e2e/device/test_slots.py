"""What is kept of a device's memory: slot files, copies from slot to slot, host memory, a shifted context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.device.asking import PROMPTS, Device, assert_near, steps
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.device

PROMPT = PROMPTS[12]


def act(server: ServerProcess, slot: int, action: str) -> Any:
    return server.ok(f"/slots/{slot}?action={action}", {"filename": "kept"})


def start(folder: Path, model: Path, *words: str) -> ServerProcess:
    kept = folder / "slots"
    kept.mkdir(exist_ok=True)
    common = ("-m", str(model), "-c", "512", "-np", "2", "--slots", "--slot-save-path", str(kept))
    return ServerProcess(folder / "log", *common, *words)


@pytest.mark.parametrize("words", [(), ("-fa", "off"), ("-ctk", "f32", "-ctv", "f32")], ids=" ".join)
def test_a_slot_file_holds_over_a_restart(device: Device, tmp_path: Path, model: Path, words: tuple[str, ...]) -> None:
    again = {"cache_prompt": True, "id_slot": 0}
    with start(tmp_path, model, *words) as server:
        first = steps(server, PROMPT, **again)
        n_saved = act(server, 0, "save")["n_saved"]
    with start(tmp_path, model, *words) as server:
        act(server, 0, "restore")
        body = {"prompt": PROMPT, "n_predict": 1, **again}
        assert server.ok("/completion", body)["timings"]["cache_n"] >= n_saved - 4, "restored, and not computed again"
        assert_near([steps(server, PROMPT, **again)], [first])
        assert "KV ledger" not in server.log


def test_a_context_that_is_full_shifts_on_the_device(device: Device, tmp_path: Path, model: Path) -> None:
    with start(tmp_path, model, "-np", "1", "-c", "64", "--context-shift") as server:
        body = {"prompt": PROMPTS[0], "n_predict": 72, "temperature": 0, "ignore_eos": True}
        full = server.ok("/completion", body)
        assert (full["tokens_predicted"], full["truncated"]) == (72, True)
        assert "KV ledger" not in server.log
