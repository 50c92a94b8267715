"""Somebody's own libllama instead of ours: built by one command, and refused where it does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamabox.bindings import prefix as prefixes
from tests.e2e.command.own_prefix import ROOT, VERSION
from tests.e2e.conftest import DEMO
from tests.e2e.server_process import ServerProcess
from tests.suite.ahead import AHEAD, MODULE
from tests.suite.ports import free_port


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **env}
    )


@pytest.fixture(scope="module")
def own_prefix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built while the other tests ran, where they did, and else now."""
    if AHEAD in request.config.stash:
        ahead = request.config.stash[AHEAD]
        folder, (code, said) = ahead.folder, ahead.wait()
    else:
        folder = tmp_path_factory.mktemp("swap")
        built = run("-m", MODULE, str(folder))
        code, said = built.returncode, built.stdout + built.stderr
    assert code == 0, said
    return folder / "prefix"


def test_version_shows_it_and_chat_works(own_prefix: Path, tmp_path: Path, model: Path) -> None:
    assert VERSION in run("-m", "llamabox", "--version", LLAMABOX_NATIVE=str(own_prefix)).stderr
    assert VERSION not in run("-m", "llamabox", "--version").stderr
    env = {"LLAMABOX_NATIVE": str(own_prefix)}
    with ServerProcess(tmp_path / "log", *DEMO, "-m", str(model), "-t", "-1", env=env) as server:
        body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
        answer = server.ok("/v1/chat/completions", {**body, "max_tokens": 24})
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert str(own_prefix) in Path(f"/proc/{server.worker_pid()}/maps").read_text()


def test_a_libllama_with_other_layouts_is_refused_in_a_sentence(own_prefix: Path, tmp_path: Path, model: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(prefixes.locate(), mixed)
    shutil.copy(own_prefix / "libllama.so", mixed / "libllama.so")
    for arguments in (["--version"], ["-m", str(model), "--port", str(free_port())]):
        ended = run("-m", "llamabox", *arguments, LLAMABOX_NATIVE=str(mixed))
        said = ended.stderr.strip().splitlines()
        assert ended.returncode == 2
        assert any("libllama.so is not the file" in line and "build_native.py" in line for line in said), ended.stderr
        assert "Traceback" not in ended.stderr
