"""Somebody's own libllama instead of ours: built by one command, and refused where it does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamabox.bindings import prefix as prefixes
from native.build.cache import cache_folder
from native.build.sources import fetch, read_versions, unpack
from tests.e2e.conftest import DEMO
from tests.e2e.server_process import ServerProcess
from tests.suite.ports import free_port

ROOT = Path(__file__).parents[3]
VERSION = "98.76.54"
FIELD = "struct llama_context * ctx_other;"
HASTY = "-DCMAKE_C_FLAGS_RELEASE='-O0 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELEASE='-O0 -DNDEBUG -U__AMX_INT8__'"
"""CMake's words for libraries that say eight tokens: to make them fast would take longer than to use them slow."""

UNITY = "set_target_properties({0} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)\n"
IN_HASTE = {
    "src/CMakeLists.txt": UNITY.format("llama"),
    "tools/mtmd/CMakeLists.txt": UNITY.format("mtmd")
    + "set_source_files_properties(mtmd-helper.cpp mtmd-helper-gen.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)\n",
}
"""Lines that have CMake compile sixteen files as one: their headers, which are most of the work, are read once."""


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **env}
    )


@pytest.fixture(scope="module")
def own_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix built from a changed copy of the sources: another version string, one struct longer by a field."""
    folder = tmp_path_factory.mktemp("swap")
    source = read_versions()
    checkout = folder / "llama.cpp"
    unpack(fetch(source, cache_folder() / "downloads"), source, checkout)
    replace(checkout / "CMakeLists.txt", 'set(LLAMA_VERSION "${LLAMA_VERSION_BASE}', f'set(LLAMA_VERSION "{VERSION}')
    replace(checkout / "include/llama.h", FIELD, f"{FIELD}\n        int64_t a_field_of_my_own;")
    for name, lines in IN_HASTE.items():
        with (checkout / name).open("a") as file:
            file.write(f"\n{lines}")
    words = ("--llama-cpp", str(checkout), "--prefix", str(folder / "prefix"), "--without-images")
    built = run("build_native.py", *words, CMAKE_ARGS=HASTY)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "prefix"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} no longer says {old!r}"
    path.write_text(text.replace(old, new))


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
