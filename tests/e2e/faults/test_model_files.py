"""A model file that is no good: one clear line, exit code 1, no memory blow-up."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess
from tests.models.media.projectors import write_noncausal_mmproj
from tests.suite.ports import free_port

GGUF_V3 = b"GGUF" + struct.pack("<I", 3)


LIMITED = ("bash", "-c", 'ulimit -v 4194304; exec "$@"', "-")
"""Starts a command with 4 GiB of address space. A good model of this size takes less than one."""


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the server with limited memory, to its end."""
    command = [*LIMITED, sys.executable, "-m", "llamabox", "--port", str(free_port()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def first_half(model: Path) -> bytes:
    """Of a good model."""
    return model.read_bytes()[: model.stat().st_size // 2]


def retyped(key: bytes, other: bytes) -> Callable[[Path], bytes]:
    """A good model with other bytes in the place of the first ones like these."""

    def content(model: Path) -> bytes:
        whole = model.read_bytes()
        assert key in whole
        return whole.replace(key, other, 1)

    return content


CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "truncated tensors": first_half,
    "text": lambda _: b"hello, I am not a model\n" * 100,
    "absurd tensor count": lambda _: GGUF_V3 + struct.pack("<QQ", 2**60, 4) + bytes(256),
    "absurd string": lambda _: GGUF_V3 + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62) + bytes(256),
    "wrong types": retyped(b"general.architecture\x08", b"general.architecture\x04"),
    "unknown architecture": retyped(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00lemma"),
}
"""What a bad file holds, made from a good model. More, and what is said of each: tests/bindings/test_model.py."""


@pytest.mark.parametrize("kind", [*CONTENTS, "directory", "missing"])
def test_one_clear_line_and_exit_1(tmp_path: Path, model: Path, kind: str) -> None:
    path = tmp_path if kind == "directory" else tmp_path / f"{kind.replace(' ', '-')}.gguf"
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind](model))
    ended = start("-m", str(path))
    assert ended.returncode == 1, ended.stderr
    said = [line for line in ended.stderr.splitlines() if str(path) in line]
    assert len(said) == 1, ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_clear_line_for_a_projector_that_is_none_or_of_another_model(
    tmp_path: Path, model: Path, mmproj: Path
) -> None:
    """What else may be wrong with one is in tests/bindings/media."""
    wider = write_noncausal_mmproj(tmp_path / "wider.gguf", 640)
    cases = {
        ("-mm", str(wider)): "it is for models whose embeddings have 640 numbers",
        ("-mm", str(model)): "it is a llama model, no multimodal projector (mmproj): name it with -m",
        ("-m", str(mmproj)): "it is a multimodal projector (mmproj): name it with -mm",
    }
    for words, why in cases.items():
        ended = start("-m", str(model), *words)
        assert ended.returncode == 1, ended.stderr
        said = [line for line in ended.stderr.splitlines() if f"{words[1]} cannot be loaded: {why}" in line]
        assert len(said) == 1, ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_good_model_has_room_enough_in_the_same_limits(tmp_path: Path, model: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(model), before=LIMITED) as server:
        assert server.ok("/completion", {"prompt": "Hello", "n_predict": 2})["tokens_predicted"] == 2
