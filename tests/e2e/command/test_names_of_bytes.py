"""Names of files that are no UTF-8, as older systems and archives have them: served, and every reply is JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess
from tests.models.adapters import make_control_vector, make_lora

FLAGS = ("-m", "--lora", "--control-vector", "--ssl-key-file", "--api-key-file", "--grammar-file", "--slot-save-path")


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model, adapters and all that options name, in a folder whose name is Latin-1."""
    folder = tmp_path_factory.mktemp("names") / os.fsdecode(b"caf\xe9 \xff")
    (folder / "slots").mkdir(parents=True)
    os.symlink(model, folder / os.fsdecode(b"m\xf6del.gguf"))
    make_lora(folder / "lora.gguf")
    make_control_vector(folder / "vector.gguf")
    (folder / "keys").write_bytes(b"# keys\nsesame\n")
    (folder / "template").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    return folder


def test_everything_works(folder: Path, tmp_path: Path) -> None:
    model = folder / os.fsdecode(b"m\xf6del.gguf")
    named = {
        "-m": model, "--lora": folder / "lora.gguf", "--control-vector": folder / "vector.gguf",
        "--api-key-file": folder / "keys", "--chat-template-file": folder / "template",
        "--slot-save-path": folder / "slots",
    }  # fmt: skip
    words = [word for flag, path in named.items() for word in (flag, str(path))]
    with ServerProcess(tmp_path / "log", *words, "--slots", "-c", "512", "-np", "2", "--log-json") as server:
        server.http.headers["X-Api-Key"] = "sesame"
        assert server.ok("/completion", {"prompt": "Hello", "n_predict": 4})["tokens_predicted"] == 4
        for path in ("/v1/models", "/props", "/lora-adapters", "/slots"):
            reply = server.http.get(path)
            assert reply.status_code == 200
            json.loads(reply.content.decode())
            assert b"\\udc" not in reply.content.lower()
        assert "caf\ufffd" in server.http.get("/props").json()["model_path"]
        assert server.ok("/slots/0?action=save", {"filename": "kept"})["n_saved"] > 0
        assert (folder / "slots" / "kept").is_file()
        assert server.ok("/slots/1?action=restore", {"filename": "kept"})["n_restored"] > 0
    assert "Traceback" not in server.log
    for line in server.log.splitlines():
        json.loads(line)


@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_not_there_is_one_sentence(flag: str, model: Path) -> None:
    words = [flag, b"/nowhere/\xff\xfe"] if flag == "-m" else ["-m", str(model), flag, b"/nowhere/\xff\xfe"]
    done = subprocess.run([sys.executable, "-m", "llamabox", *words], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    error = done.stderr.decode()
    assert error.count("error: ") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["--alias", b"\xff"],
        ["--chat-template", b"\xff"],
        ["--grammar", b'root ::= "\xff"'],
        ["--cors-origins", b"\xff"],
    ],
)
def test_bytes_where_a_text_belongs_are_refused(words: list[str | bytes]) -> None:
    done = subprocess.run([sys.executable, "-m", "llamabox", *words], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"expected a text in UTF-8" in done.stderr


def test_a_key_of_other_bytes_is_a_key(model: Path, tmp_path: Path) -> None:
    environ = {os.fsdecode(b"LLAMA_API_KEY"): os.fsdecode(b"s\xe9same")}
    with ServerProcess(tmp_path / "log", "-m", str(model), "-c", "256", env=environ) as server:
        assert server.http.get("/v1/models", headers=[(b"X-Api-Key", b"s\xe9same")]).status_code == 200
        assert server.http.get("/v1/models", headers=[(b"X-Api-Key", b"s\xe8same")]).status_code == 401
