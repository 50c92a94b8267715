"""Slots saved, restored and erased, over a restart and against damaged files."""

from __future__ import annotations

import json
import os
import select
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.raw_client import RawClient
from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT

PROMPT = "The lighthouse keeper wrote in his book every evening: the wind, the ships, the light. " * 6


def complete(server: ServerProcess, prompt: str, slot: int, n_predict: int = 16) -> Any:
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "id_slot": slot, "ignore_eos": True}
    return server.ok("/completion", body)


def act(server: ServerProcess, slot: int, action: str, filename: str | None = None) -> Any:
    return server.ok(f"/slots/{slot}?action={action}", {} if filename is None else {"filename": filename})


def start(tmp_path: Path, model: Path, *arguments: str) -> ServerProcess:
    common = (
        "-m",
        str(model),
        "-c",
        "2048",
        "-np",
        "2",
        "--slots",
        "--slot-save-path",
        str(tmp_path / "slots"),
    )
    return ServerProcess(tmp_path / "log", *common, *arguments)


def test_saved_restored_and_erased_over_a_restart(tmp_path: Path, tiny_text: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, tiny_text) as server:
        first = complete(server, PROMPT, 1)
        n_prompt = first["tokens_evaluated"]
        saved = act(server, 1, "save", "keeper")
        assert saved["n_saved"] == n_prompt + 16 - 1
        assert saved["n_written"] == (tmp_path / "slots/keeper").stat().st_size
        assert saved["timings"]["save_ms"] > 0
        assert act(server, 1, "erase") == {"id_slot": 1, "n_erased": n_prompt + 15}
        assert complete(server, PROMPT, 1)["timings"]["cache_n"] == 0
    with start(tmp_path, tiny_text) as server:
        restored = act(server, 0, "restore", "keeper")
        assert (restored["n_restored"], restored["n_read"]) == (saved["n_saved"], saved["n_written"])
        again = complete(server, PROMPT, 0)
        assert again["timings"]["prompt_n"] in LAST_OF_PROMPT
        assert again["timings"]["cache_n"] == n_prompt - again["timings"]["prompt_n"]
        assert again["content"] == first["content"]
        assert "KV ledger" not in server.log


def test_damage_and_bad_names_leave_the_slot_as_it_was(tmp_path: Path, tiny_text: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, tiny_text) as server:
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
        assert complete(server, PROMPT, 0)["timings"]["prompt_n"] in LAST_OF_PROMPT
        assert server.worker_pid() == worker
    with start(tmp_path, tiny_text, "--kv-unified") as server:
        response = server.post("/slots/0?action=restore", {"filename": "good"})
        assert response.status_code == 400
        assert complete(server, PROMPT, 0)["timings"]["cache_n"] == 0


def test_a_state_of_another_model_of_the_same_shape_or_of_other_settings_is_refused(
    tmp_path: Path, tiny_text: Path
) -> None:
    # Was: only names and sizes were compared, and an instruct model went on from its base model's cells.
    (tmp_path / "slots").mkdir()
    with start(tmp_path, tiny_text) as server:
        complete(server, PROMPT, 0)
        act(server, 0, "save", "good")
    other = tmp_path / "other.gguf"
    content = bytearray(tiny_text.read_bytes())
    content[-1000] ^= 1  # in the weights
    other.write_bytes(content)
    for path, words in ((other, ()), (tiny_text, ("--rope-freq-base", "20000"))):
        with start(tmp_path, path, *words) as server:
            response = server.post("/slots/0?action=restore", {"filename": "good"})
            assert response.status_code == 400, words
            assert ("another model" if path is other else "other settings: RoPE") in response.json()["error"]["message"]
            assert complete(server, PROMPT, 0, n_predict=1)["timings"]["cache_n"] == 0


def test_a_client_that_went_away_while_its_slot_was_busy_gets_nothing_done(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server:
        complete(server, PROMPT, 1)
        act(server, 1, "save", "good")
        slow = {"speculative.n_max": 0}  # with drafts it would be over before the third client is gone
        long = {"prompt": "x", "n_predict": 2000, "ignore_eos": True, "id_slot": 0, **slow}
        stream = server.stream("/completion", long)
        next(stream)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                server.http.post("/slots/0?action=restore", json={"filename": "good"}, timeout=0.3)
        stream.close()  # type: ignore[attr-defined]
        server.wait_idle()
        assert act(server, 0, "erase")["n_erased"] != complete(server, PROMPT, 1)["tokens_evaluated"] + 15


BAD_NAMES = [
    *("../log", "..", ".", "a/b", "/etc/passwd", "a\\b", "..\\log", "%2e%2e%2flog/x", "slots/../../log"),
    *("\uff0e\uff0e\uff0flog", "..\u2215log", "..\u2216log", "\u2025\u2044log", "a\uff0fb", ".\u200b./log"),
    *("a\0b", "good\0", "a\nb", "a\x7f", "a\x85", "\ud800", "\ufffd", "\ufeffgood"),
    *("x" * 256, "é" * 200, "x" * 1_000_000, "", " ", " good", "good ", "good.", ".good", "...", "a:b", "a*", "?"),
    *(5, 1.5, True, None, [], ["good"], {}, {"a": "good"}),
    *("link", "outside", "pipe", "folder", "loop"),
]


@pytest.mark.parametrize("action", ["save", "restore"])
def test_no_name_leads_anywhere_else(tmp_path: Path, tiny_text: Path, action: str) -> None:
    """What stands beside and behind the folder is as it was, and so is the slot."""
    folder = tmp_path / "slots"
    (folder / "folder").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"LLBXSLOT" + b"secret")
    (folder / "link").symlink_to(secret)
    (folder / "outside").symlink_to(tmp_path / "new")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    with start(tmp_path, tiny_text) as server:
        complete(server, PROMPT, 0, n_predict=1)
        act(server, 0, "save", "good")
        before = sorted((path, path.lstat().st_mode, path.lstat().st_size) for path in tmp_path.rglob("*"))
        for name in BAD_NAMES:
            content = json.dumps({"filename": name}).encode()
            response = server.http.post(f"/slots/0?action={action}", content=content)
            assert response.status_code == 400, (name, response.text)
            assert "secret" not in response.text
        after = sorted((path, path.lstat().st_mode, path.lstat().st_size) for path in tmp_path.rglob("*"))
        assert [one for one in after if one[0] != tmp_path / "log"] == [
            one for one in before if one[0] != tmp_path / "log"
        ]
        assert secret.read_bytes() == b"LLBXSLOT" + b"secret"
        assert complete(server, PROMPT, 0, n_predict=1)["timings"]["prompt_n"] in LAST_OF_PROMPT
        assert "Traceback" not in server.log


def test_so_many_actions_may_wait_for_a_busy_slot(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server, ExitStack() as stack:
        stream = server.stream("/completion", {"prompt": "x", "n_predict": 2000, "ignore_eos": True, "id_slot": 0})
        next(stream)
        clients: dict[socket.socket, RawClient] = {}
        answered: list[socket.socket] = []
        while not answered:
            assert len(clients) < 1000, "nobody is refused"
            client = stack.enter_context(RawClient(server.port))
            client.post("/slots/0?action=erase", {})
            clients[client.sock] = client
            answered = select.select(clients, [], [], 0 if len(clients) < 257 else 0.1)[0]
        refused = clients.pop(answered[0])
        assert b"503" in refused.read_until(b"\r\n")
        stream.close()  # type: ignore[attr-defined]
        assert b"200" in next(iter(clients.values())).read_until(b"\r\n")


def test_a_busy_slot_is_waited_for(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slots").mkdir()
    with start(tmp_path, model) as server:
        stream = server.stream("/completion", {"prompt": "Count:", "n_predict": 60, "ignore_eos": True, "id_slot": 0})
        evaluated = next(stream)["tokens_evaluated"]
        saved = server.ok("/slots/0?action=save", {"filename": "busy"})
        assert saved["n_saved"] == evaluated + 59
        assert len(list(stream)) == 60
