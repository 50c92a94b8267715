"""Loading: what a model says of itself, and that no file can do harm."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.bindings.ffi import Native
from llamabox.bindings.files import gguf
from llamabox.bindings.model import LoadMode, Model, ModelParams, type_sizes
from llamabox.errors import ModelLoadError


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def string(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", gguf.STRING) + text(value)


def uint32(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<{len(shape)}q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, offset)


def file(*values: bytes, tensors: tuple[bytes, ...] = (), data: int = 0, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<Iqq", version, len(tensors), len(values)) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


ARCHITECTURE = string("general.architecture", "llama")

MALFORMED = {
    "empty": (b"", "empty"),
    "not a GGUF": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "a letter": (b"G", "not a GGUF file"),
    "zero bytes": (bytes(4096), "not a GGUF file"),
    "only the magic": (b"GGUF", "ends in the middle"),
    "another version": (file(ARCHITECTURE, version=9), "version 9"),
    "another byte order": (b"GGUF" + struct.pack(">Iqq", 3, 0, 0), "other byte order"),
    "too many tensors": (b"GGUF" + struct.pack("<Iqq", 3, 2**62, 0) + bytes(64), "more than fit"),
    "too many values": (b"GGUF" + struct.pack("<Iqq", 3, 4, 2**60) + bytes(256), "more than fit"),
    "fewer than no values": (b"GGUF" + struct.pack("<Iqq", 3, 0, -1) + bytes(64), "more than fit"),
    "a giant key": (file(struct.pack("<Q", 2**63) + bytes(64)), "more than there can be"),
    "a giant string": (file(text("k") + struct.pack("<IQ", 8, 2**60) + bytes(64)), "more than there can be"),
    "a giant array": (file(text("k") + struct.pack("<IIQ", 9, 4, 2**62) + bytes(64)), "ends in the middle"),
    "a giant array of texts": (
        file(text("k") + struct.pack("<IIQ", 9, 8, 2**61) + bytes(64)),
        "2305843009213693952 strings",
    ),
    "an array of arrays": (file(text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)), "unknown type 9"),
    "an unknown value type": (file(text("k") + struct.pack("<I", 77) + bytes(64)), "unknown type 77"),
    "a token twice": (
        file(
            ARCHITECTURE,
            text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 5) + b"".join(map(text, ("", "a", "", "b", "a"))),
        ),
        "its tokens 1 and 4 are both 'a'",
    ),
    "more tokens than bytes": (
        file(ARCHITECTURE, text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**61) + bytes(64)),
        "2305843009213693952 strings",
    ),
    "no architecture": (file(), "general.architecture"),
    "architecture of the wrong type": (file(uint32("general.architecture", 1)), "general.architecture"),
    "alignment 3": (file(ARCHITECTURE, uint32("general.alignment", 3)), "power of two"),
    "no layers": (file(ARCHITECTURE, uint32("llama.block_count", 0)), "block_count is 0"),
    "absurd layers": (file(ARCHITECTURE, uint32("llama.block_count", 2**31)), "block_count is 2147483648"),
    "layers in words": (file(ARCHITECTURE, string("llama.block_count", "two")), "block_count is 'two'"),
    "absurd embedding": (file(ARCHITECTURE, uint32("llama.embedding_length", 2**32 - 1)), "embedding_length"),
    "absurd shape": (file(ARCHITECTURE, tensors=(tensor("t", (2**40, 2**20)),)), "impossible shape"),
    "overflowing shape": (file(ARCHITECTURE, tensors=(tensor("t", (2**62, 4)),)), "impossible shape"),
    "negative shape": (file(ARCHITECTURE, tensors=(tensor("t", (-32,)),)), "impossible shape"),
    "five dimensions": (file(ARCHITECTURE, tensors=(tensor("t", (1, 1, 1, 1, 1)),)), "5 dimensions"),
    "an unknown tensor type": (file(ARCHITECTURE, tensors=(tensor("t", (32,), kind=999),)), "type 999"),
    "a removed tensor type": (file(ARCHITECTURE, tensors=(tensor("t", (32,), kind=4),)), "type 4"),
    "half a block": (file(ARCHITECTURE, tensors=(tensor("t", (33,), kind=2),), data=64), "block of 32"),
    "data cut off": (file(ARCHITECTURE, tensors=(tensor("t", (1024,)),), data=100), "cut off"),
    "an offset beyond the file": (file(ARCHITECTURE, tensors=(tensor("t", (32,), offset=2**63),), data=128), "cut off"),
    "no tensors": (file(ARCHITECTURE, uint32("llama.block_count", 1)), ""),
}


@pytest.mark.parametrize(("content", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_gives_one_clear_line(native: Native, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelLoadError) as refused:
        Model.load(native, path)
    assert str(path) in refused.value.message
    assert reason in refused.value.message
    assert "\n" not in refused.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None], ids=["directory", "pipe", "nothing"])
def test_what_is_not_a_file_is_refused(native: Native, tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        Model.load(native, path)


@pytest.mark.parametrize("part", [0.001, 0.02, 0.5, 0.999])
def test_a_truncated_model_is_refused(native: Native, model_path: Path, tmp_path: Path, part: float) -> None:
    data = model_path.read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelLoadError, match=r"ends in the middle|cut off|more than the file holds"):
        Model.load(native, path)


def test_a_part_of_a_split_model_needs_the_others(native: Native, tmp_path: Path) -> None:
    count = text("split.count") + struct.pack("<IH", 2, 3)
    path = tmp_path / "model-00001-of-00003.gguf"
    path.write_bytes(file(ARCHITECTURE, count))
    with pytest.raises(ModelLoadError, match=r"model-00002-of-00003\.gguf.*no such file"):
        Model.load(native, path)
    misnamed = path.rename(tmp_path / "model.gguf")
    with pytest.raises(ModelLoadError, match="one of 3 parts"):
        Model.load(native, misnamed)
    second = tmp_path / "model-00002-of-00003.gguf"
    second.write_bytes(file(count, text("split.no") + struct.pack("<IH", 2, 1)))
    with pytest.raises(ModelLoadError, match="not the first of 3 parts"):
        Model.load(native, second)


def test_damaged_headers_are_refused_or_load_but_never_kill(model_path: Path, tmp_path: Path) -> None:
    """Random damage to the front of a real file, loaded in a process of its own: an abort is seen as its death."""
    code = """
import sys
import threading
from pathlib import Path
from llamabox.bindings import ffi, backend
from llamabox.bindings.model import Model, ModelParams
from llamabox.errors import ModelLoadError
native = ffi.load(); backend.start(native)
for path in sys.argv[1:]:
    try:
        Model.load(native, path, ModelParams(vocab_only=False)).close()
    except ModelLoadError as exc:
        assert "\\n" not in exc.message
"""
    data = model_path.read_bytes()
    dice = random.Random(7)
    paths = []
    for number in range(8):
        damaged = bytearray(data)
        for _ in range(3):
            at = dice.randrange(4, 1500)
            damaged[at] = dice.randrange(256)
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(damaged)
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_check_reads_what_the_file_says(native: Native, model_path: Path, model: Model) -> None:
    header = gguf.check_model(model_path, type_sizes(native))
    assert header.values["general.architecture"] == model.meta("general.architecture") == "llama"
    assert header.number("llama.block_count") == model.n_layer
    assert header.arrays["tokenizer.ggml.tokens"] == model.vocab.n_tokens


def test_properties(model: Model) -> None:
    assert model.desc.startswith("llama")
    assert (model.n_ctx_train, model.n_swa) == (8192, 0)
    assert model.n_params > 134_000_000
    assert 0 < model.size <= model.path.stat().st_size
    assert "Q4_1" in model.ftype
    assert model.has_decoder
    assert [model.is_recurrent, model.is_hybrid] == [False] * 2
    assert "<|im_start|>" in (model.chat_template() or "")
    assert model.chat_template("no_such_name") is None
    assert model.meta("no.such.key") is None


def test_progress_is_told_in_the_calling_thread_and_rises(native: Native, model_path: Path) -> None:
    told: list[tuple[int, float]] = []
    params = ModelParams(load_mode=LoadMode.NONE)
    with Model.load(native, model_path, params, on_progress=lambda part: told.append((threading.get_ident(), part))):
        pass
    assert {thread for thread, _ in told} == {threading.get_ident()}
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


def test_a_load_can_be_stopped(native: Native, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamabox.bindings.model.REPORT_SECONDS", 0)
    with pytest.raises(ModelLoadError, match="stopped"):
        Model.load(native, model_path, ModelParams(load_mode=LoadMode.NONE), on_progress=lambda _: False)


def test_an_override_changes_what_the_model_says(native: Native, model_path: Path) -> None:
    params = ModelParams(kv_overrides=(("llama.context_length", 1234), ("tokenizer.ggml.add_bos_token", True)))
    with Model.load(native, model_path, params) as model:
        assert model.n_ctx_train == 1234
        assert model.vocab.add_bos
    with pytest.raises(ModelLoadError, match="127 bytes"):
        Model.load(native, model_path, ModelParams(kv_overrides=(("x" * 128, 1),)))


def test_closing_twice_is_harmless(native: Native, model_path: Path) -> None:
    model = Model.load(native, model_path, ModelParams(vocab_only=True))
    model.close()
    model.close()


def test_a_load_that_is_given_up_ends_and_leaves_nothing(native: Native, model_path: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        loading = Model.begin(native, model_path, ModelParams(load_mode=LoadMode.NONE))
        loading.close()
        loading.close()
        assert set(threading.enumerate()) <= before


def test_a_model_that_was_waited_for_outlives_its_load(native: Native, model_path: Path) -> None:
    loading = Model.begin(native, model_path, ModelParams(vocab_only=True))
    with loading.finish() as model:
        loading.close()
        assert model.vocab.n_tokens > 0
