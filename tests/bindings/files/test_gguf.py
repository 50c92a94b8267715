"""Headers are read in pieces, and files that are no model say what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llamabox.bindings.files import gguf
from llamabox.errors import ModelLoadError
from tests.models.gguf_file import Typed, Value, _text, write_gguf

SIZES = {0: (1, 4), 1: (1, 2)}
MATRIX = {"blk.0.attn_q.weight": np.ones((4, 32), np.float32)}


def words(*texts: str) -> Typed:
    """An array of texts."""
    data = b"".join(map(_text, texts))
    return Typed(9, (8).to_bytes(4, "little") + len(texts).to_bytes(8, "little") + data)


def described(values: dict[str, Value], path: Path, tensors: dict[str, np.ndarray] = MATRIX) -> str:  # type: ignore[type-arg]
    write_gguf(path, values, tensors)
    with pytest.raises(ModelLoadError) as refused:
        gguf.check_model(path, SIZES)
    assert str(path) in refused.value.message
    return refused.value.message


@pytest.mark.parametrize("piece", [1, 8, 9, 33, 1000])
def test_the_size_of_the_pieces_does_not_show(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Value] = {
        "general.architecture": "llama", "llama.block_count": 3, "a": 1.5, "long": "é" * 3000, "last": "x",
        "tokens": words(*("w" * (i % 50) for i in range(300))), "none": words(),
    }  # fmt: skip
    path = write_gguf(tmp_path / "m.gguf", values, {f"blk.{i}.w": np.ones((2, 32), np.float32) for i in range(9)})
    whole = gguf.check_model(path, SIZES)
    assert (whole.arrays, whole.text("last"), len(whole.tensors)) == ({"tokens": 300, "none": 0}, "x", 9)
    monkeypatch.setattr(gguf, "PIECE", piece)
    assert gguf.check_model(path, SIZES) == whole


def test_a_text_that_nobody_looks_at_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "MAX_TEXT", 100)
    values: dict[str, Value] = {
        "general.architecture": "llama",
        "tokenizer.huggingface.json": "x" * 101,
        "b": "y" * 100,
    }
    header = gguf.check_model(write_gguf(tmp_path / "m.gguf", values, MATRIX), SIZES)
    assert header.text("tokenizer.huggingface.json") is None
    assert header.text("b") == "y" * 100


def test_no_file_is_mapped(tmp_path: Path) -> None:
    """Not for its header, and not where its matrices are widened: some file systems cannot, and --no-mmap means it."""
    path = tmp_path / "m.gguf"
    write_gguf(path, {"general.architecture": "bert"}, {"blk.0.w": np.ones((4, 32), np.float16)})
    script = (
        "import sys; mapped = [];"
        "sys.addaudithook(lambda event, _: mapped.append(event) if event == 'mmap.__new__' else None);"
        "from pathlib import Path; from llamabox.bindings.files import gguf;"
        "from llamabox.bindings.weights.widen import widened;"
        "path = Path(sys.argv[1]); header = gguf.check_model(path, {0: (1, 4), 1: (1, 2)});"
        "assert widened(path, header, 1 << 20) is not None or sys.platform != 'linux'; print(mapped)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"general.type": "adapter", "adapter.type": "lora", "general.architecture": "qwen3"}, "this file with --lora"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "multimodal projector"),
        ({"general.architecture": "clip"}, "multimodal projector"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.architecture": "controlvector"}, "--control-vector"),
        ({"general.architecture": "flux"}, "--images"),
        ({}, "does not name its architecture"),
    ],
)
def test_a_gguf_file_that_is_no_model_says_what_it_is(values: dict[str, Value], part: str, tmp_path: Path) -> None:
    assert part in described(values, tmp_path / "m.gguf")


def test_a_model_that_draws_is_known_by_its_tensors(tmp_path: Path) -> None:
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": np.ones((4, 32), np.float32)}
    assert "--images" in described({}, tmp_path / "m.gguf", tensors)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE HTML><html>", "a web page"),
        ((64).to_bytes(8, "little") + b'{"a": {}}', "safetensors"),
        (b"PK\x03\x04" + bytes(100), "--images"),
        (b"tjgg" + bytes(100), "an old ggml model"),
        (b"something else entirely, longer than thirty-two bytes", "the first four bytes"),
    ],
)
def test_a_file_of_another_kind_says_what_it_is(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="it is not a GGUF file") as refused:
        gguf.check_model(path, SIZES)
    assert part in refused.value.message


def test_a_file_that_shrinks_as_it_is_read_is_cut_off(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama", "b": "x" * 4000}, MATRIX)
    size = path.stat().st_size
    os.truncate(path, 2000)
    with path.open("rb") as file, pytest.raises(ModelLoadError, match="ends in the middle"):
        gguf.parse(gguf.Reader(path, file, size), SIZES)
