"""Slots saved, restored and erased, over a restart and against damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.server_process import ServerProcess

PROMPT = "The lighthouse keeper wrote in his book every evening: the wind, the ships, the light. " * 6


def complete(server: ServerProcess, prompt: str, slot: int, n_predict: int = 16) -> Any:
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "id_slot": slot, "ignore_eos": True}
    return server.ok("/completion", body)


def act(server: ServerProcess, slot: int, action: str, filename: str | None = None) -> Any:
    return server.ok(f"/slots/{slot}?action={action}", {} if filename is None else {"filename": filename})


def start(tmp_path: Path, model: Path, *arguments: str) -> ServerProcess:
    common = ("-m", str(model), "-c", "2048", "-np", "2", "--slots", "--slot-save-path", str(tmp_path / "slots"))
    return ServerProcess(tmp_path / "log", *common, *arguments)


def test_saved_restored_and_erased_over_a_restart(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server:
        first = complete(server, PROMPT, 1)
        n_prompt = first["tokens_evaluated"]
        saved = act(server, 1, "save", "keeper")
        assert saved["n_saved"] == n_prompt + 16 - 1
        assert saved["n_written"] == (tmp_path / "slots/keeper").stat().st_size
        assert saved["timings"]["save_ms"] > 0
        assert act(server, 1, "erase") == {"id_slot": 1, "n_erased": n_prompt + 15}
        assert complete(server, PROMPT, 1)["timings"]["cache_n"] == 0
    with start(tmp_path, model) as server:
        restored = act(server, 0, "restore", "keeper")
        assert (restored["n_restored"], restored["n_read"]) == (saved["n_saved"], saved["n_written"])
        again = complete(server, PROMPT, 0)
        assert again["timings"] | {"prompt_n": 1, "cache_n": n_prompt - 1} == again["timings"]
        assert again["content"] == first["content"]
        assert "KV ledger" not in server.log


def test_damage_and_bad_names_leave_the_slot_as_it_was(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server:
        complete(server, PROMPT, 0)
        act(server, 0, "save", "good")
        worker = server.worker_pid()
        content = (tmp_path / "slots/good").read_bytes()
        (tmp_path / "slots/cut").write_bytes(content[:5000])
        (tmp_path / "slots/changed").write_bytes(content[:6000] + b"?" + content[6001:])
        (tmp_path / "slots/link").symlink_to(tmp_path / "log")
        for name in ("cut", "changed", "link", "missing", "../log", "a/b", "", 5, None):
            response = server.post("/slots/0?action=restore", {"filename": name})
            assert response.status_code == 400, (name, response.text)
        for path in ("/slots/2?action=erase", "/slots/-1?action=erase", "/slots/x?action=erase", "/slots/0?action=no"):
            assert server.post(path, {}).status_code == 400
        assert server.http.post("/slots/1?action=erase").json() == {"id_slot": 1, "n_erased": 0}
        assert complete(server, PROMPT, 0)["timings"]["prompt_n"] == 1
        assert server.worker_pid() == worker
    with start(tmp_path, model, "--kv-unified") as server:
        response = server.post("/slots/0?action=restore", {"filename": "good"})
        assert response.status_code == 400
        assert complete(server, PROMPT, 0)["timings"]["cache_n"] == 0


def test_a_busy_slot_is_waited_for(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server:
        stream = server.stream("/completion", {"prompt": "Count:", "n_predict": 60, "ignore_eos": True, "id_slot": 0})
        evaluated = next(stream)["tokens_evaluated"]
        saved = server.ok("/slots/0?action=save", {"filename": "busy"})
        assert saved["n_saved"] == evaluated + 59
        assert len(list(stream)) == 60
