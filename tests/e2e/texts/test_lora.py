"""LoRA adapters and control vectors as a user sees them: on a real server, alone and side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.near_tie import TOLERANCE
from tests.e2e.server_process import ServerProcess
from tests.e2e.shapes import LAST_OF_PROMPT
from tests.models.adapters import LORA, N_EMBD, drawn, make_control_vector, make_lora, pair
from tests.models.gguf_file import write_gguf
from tests.suite.ports import free_port

PROMPT = "The lighthouse keeper wrote in his book every evening:"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.gguf and b.gguf, two adapters, and c.gguf, a control vector."""
    folder = tmp_path_factory.mktemp("adapters")
    make_lora(folder / "a.gguf", seed=1)
    make_lora(folder / "b.gguf", seed=2)
    make_control_vector(folder / "c.gguf")
    return folder


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess], files: Path) -> ServerProcess:
    loras = ("--lora-scaled", str(files / "a.gguf"), "0.5", "--lora", str(files / "b.gguf"))
    return serve("-c", "4096", "-np", "4", *loras)


@pytest.fixture(scope="module")
def plain(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "4096", "-np", "4")


def say(server: ServerProcess, prompt: str = PROMPT, **fields: Any) -> list[int]:
    """The tokens of a greedy answer."""
    body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "ignore_eos": True, "return_tokens": True, **fields}
    tokens: list[int] = server.ok("/completion", body)["tokens"]
    assert len(tokens) == 24
    return tokens


def scaled(*scales: float) -> list[dict[str, Any]]:
    return [{"id": i, "scale": scale} for i, scale in enumerate(scales)]


def test_at_scale_0_it_is_the_base_and_at_others_it_is_not(server: ServerProcess, plain: ServerProcess) -> None:
    base = say(plain)
    assert say(server, lora=scaled(0, 0)) == say(server, lora=[]) == base
    half, whole = say(server, lora=scaled(0.5)), say(server, lora=scaled(1))
    assert len({tuple(tokens) for tokens in (base, half, whole, say(server, lora=scaled(0, 1)))}) == 4
    assert say(server, lora=scaled(0)) == base


def test_the_command_lines_scales_hold_until_others_are_posted(server: ServerProcess) -> None:
    listed = server.http.get("/lora-adapters").json()
    assert [(one["id"], Path(one["path"]).name, one["scale"]) for one in listed] == [
        (0, "a.gguf", 0.5),
        (1, "b.gguf", 1),
    ]
    both = say(server, lora=scaled(0.5, 1))
    assert say(server) == both
    try:
        assert server.ok("/lora-adapters", scaled(0)) == {"success": True}
        assert say(server) == say(server, lora=[]) != both
        assert server.post("/lora-adapters", [{"id": 0, "scale": 1}, {"id": 7, "scale": 1}]).status_code == 400
        assert [one["scale"] for one in server.http.get("/lora-adapters").json()] == [0, 0]
    finally:
        server.ok("/lora-adapters", scaled(0.5, 1))
    assert say(server) == both


def test_posted_scales_outlive_a_worker_that_dies(serve: Callable[..., ServerProcess], files: Path) -> None:
    server = serve("-c", "512", "--lora", str(files / "a.gguf"), "--lora-init-without-apply", "--no-warmup")
    assert server.http.get("/lora-adapters").json()[0]["scale"] == 0
    base, changed = say(server), say(server, lora=scaled(1))
    assert changed != base
    server.ok("/lora-adapters", scaled(1))
    os.kill(server.worker_pid(), signal.SIGKILL)
    killed = time.monotonic()
    while server.health() == 200:
        assert time.monotonic() - killed < 10, "/health still says 200"
    server.wait_ready()
    assert server.http.get("/lora-adapters").json()[0]["scale"] == 1
    assert say(server) == changed


def test_six_requests_of_three_sets_on_four_slots_each_say_what_they_would_have_said_alone(
    server: ServerProcess,
) -> None:
    """The same text for all: where cells or batches were shared between sets, somebody would say something else."""
    sets = [scaled(0), scaled(1), scaled(0, 1)]
    alone = [say(server, lora=one, cache_prompt=False) for one in sets]
    gaps = [leads(server, lora=one, cache_prompt=False) for one in sets]
    assert len({tuple(tokens[:8]) for tokens in alone}) == 3
    n_equal = 0
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda i: say(server, lora=sets[i % 3]), range(6)))
        for i, tokens in enumerate(together):
            expected, lead = alone[i % 3], gaps[i % 3]
            parts = next((at for at in range(len(expected)) if tokens[at] != expected[at]), None)
            n_equal += parts is None
            # The shape of a batch changes the last bits of its logits, which tells where two are as good as equal.
            assert parts is None or lead[parts] <= TOLERANCE, f"parts at {parts}, where the lead is {lead[parts]}"
    assert n_equal >= 12
    assert "KV ledger" not in server.log


def leads(server: ServerProcess, **fields: Any) -> list[float]:
    """How far the likeliest token is ahead of the next, in logits, at each place of the greedy answer."""
    body = {"prompt": PROMPT, "n_predict": 24, "temperature": 0, "ignore_eos": True, "n_probs": 2, **fields}
    places = server.ok("/completion", body)["completion_probabilities"]
    return [place["top_logprobs"][0]["logprob"] - place["top_logprobs"][1]["logprob"] for place in places]


def test_chat_and_streams_take_scales_too(server: ServerProcess) -> None:
    chat = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 12, "temperature": 0}
    plain, changed = (
        server.ok("/v1/chat/completions", {**chat, "lora": one})["choices"][0]["message"]["content"]
        for one in (scaled(0), scaled(1, 1))
    )
    assert plain != changed
    body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "lora": scaled(0, 0.75)}
    last = list(server.stream("/completion", body))[-1]
    assert last["generation_settings"]["lora"] == [{"id": 1, "scale": 0.75}]


def test_a_saved_slot_is_gone_on_from_under_its_own_set_only(tmp_path: Path, model: Path, files: Path) -> None:
    (tmp_path / "slots").mkdir()
    common = (
        "-m",
        str(model),
        "-c",
        "1024",
        "--slots",
        "--slot-save-path",
        str(tmp_path / "slots"),
        "--no-warmup",
    )
    a, b = ("--lora", str(files / "a.gguf")), ("--lora", str(files / "b.gguf"))
    with ServerProcess(tmp_path / "log", *common, *a, *b) as server:
        first = say(server, lora=scaled(0, 1))
        server.ok("/slots/0?action=save", {"filename": "under-b"})
    with ServerProcess(tmp_path / "log", *common, *b, *a) as server:
        server.ok("/slots/0?action=restore", {"filename": "under-b"})
        body = {"prompt": PROMPT, "n_predict": 24, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        reply = server.ok("/completion", {**body, "lora": scaled(1)})  # b, which is the first here
        assert reply["timings"]["prompt_n"] in LAST_OF_PROMPT
        assert reply["tokens"] == first
        server.ok("/slots/0?action=restore", {"filename": "under-b"})
        assert server.ok("/completion", {**body, "lora": []})["timings"]["cache_n"] == 0
    with ServerProcess(tmp_path / "log", *common, *a) as server:
        refused = server.post("/slots/0?action=restore", {"filename": "under-b"})
        assert refused.status_code == 400
        assert "LoRA adapter" in refused.json()["detail"]
    with ServerProcess(tmp_path / "log", *common, *b, "--control-vector", str(files / "c.gguf")) as server:
        refused = server.post("/slots/0?action=restore", {"filename": "under-b"})
        assert refused.status_code == 400
        assert "control vector" in refused.json()["detail"]


def test_a_text_that_turns_into_nan_does_not_spoil_those_that_follow(
    serve: Callable[..., ServerProcess], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without flash attention the cells that it leaves would be read again, times 0, which is NaN."""
    path = tmp_path_factory.mktemp("wild") / "wild.gguf"
    values = pair("blk.0.attn_v.weight", drawn(1, 1, N_EMBD), drawn(2, 192, 1))
    write_gguf(path, {**LORA, "adapter.lora.alpha": 1e12}, values)
    server = serve("-c", "1024", "-np", "2", "-fa", "off", "--lora", str(path), "--lora-init-without-apply")
    base = say(server)
    for id_slot in (0, 1):
        reply = server.post("/completion", {"prompt": PROMPT * 9, "lora": scaled(1), "id_slot": id_slot})
        assert reply.status_code == 500
        assert "NaN" in reply.json()["detail"]
    for id_slot in (0, 1):
        assert say(server, id_slot=id_slot, cache_prompt=False) == base


def test_a_control_vector_changes_the_answer_and_at_scale_0_does_not(
    serve: Callable[..., ServerProcess], plain: ServerProcess, files: Path
) -> None:
    base, vector = say(plain), str(files / "c.gguf")
    common = ("-c", "4096", "-np", "4", "--control-vector-scaled", vector)
    assert say(serve(*common, "0")) == base
    assert say(serve(*common, "0.5")) != base != say(serve(*common[:-2], "--control-vector", vector))
    assert say(serve(*common, "0.5", "--control-vector-layer-range", "21", "0")) == base, "it has no such layer"


def endings(files: Path, folder: Path) -> dict[str, tuple[str, ...]]:
    """Options with files that must not be loaded: the first aborts libllama.

    What else may be wrong with such a file: tests/bindings/weights/test_adapters.py.
    """
    embedding = pair("token_embd.weight", np.zeros((49152, 1), np.float32), np.zeros((N_EMBD, 1), np.float32))
    write_gguf(folder / "embedding.gguf", LORA, embedding)
    return {
        "embedding": ("--lora", str(folder / "embedding.gguf")),
        "vector": ("--lora", str(files / "c.gguf")),
        "adapter": ("--control-vector", str(files / "a.gguf")),
        "missing": ("--lora-scaled", str(folder / "missing.gguf"), "0.5"),
    }


@pytest.mark.parametrize("kind", ["embedding", "vector", "adapter", "missing"])
def test_a_file_that_cannot_be_applied_is_one_line_and_exit_1(
    tmp_path: Path, model: Path, files: Path, kind: str
) -> None:
    options = endings(files, tmp_path)[kind]
    command = [sys.executable, "-m", "llamabox", "--port", str(free_port()), "-m", str(model), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    said = [line for line in ended.stderr.splitlines() if options[1] in line]
    assert len(said) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ended by signal" not in ended.stderr
