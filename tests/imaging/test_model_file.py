"""Files are read only as far as they are what they say."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamabox.errors import ModelLoadError
from llamabox.imaging.model_file import tensors_of
from tests.models.gguf_file import Zeros, write_gguf
from tests.models.tiny_image_parts import write_safetensors


def test_both_formats_give_names_and_shapes_in_ggmls_order(tmp_path: Path) -> None:
    name = "a." + "long" * 30  # longer than a text model's may be
    array = np.zeros((4, 32), np.float16)
    gguf = write_gguf(tmp_path / "a.gguf", {}, {name: array, "q": Zeros((3, 64))})
    safetensors = write_safetensors(tmp_path / "a.safetensors", {name: array})
    assert tensors_of(gguf) == {name: (32, 4), "q": (64, 3)}
    assert tensors_of(safetensors) == {name: (32, 4)}


def test_the_tensors_of_a_checkpoint_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    assert tensors_of(path) is None
    path.write_bytes(b"\x80\x02.")
    assert tensors_of(path) is None


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"{", "not what the format says"),
        (b"{" + b'"a":[' * 100_000, "not what the format says"),
        (b'{"a": 1}', "not what the format says"),
        (json.dumps({"a": {"dtype": "F16"}}).encode(), "not what the format says"),
        (json.dumps({"a": entry(data_offsets=[0, 9])}).encode(), "cut off: tensor 'a' ends at 9 bytes .* are 8"),
        (json.dumps({"a": entry(shape=[2, 3])}).encode(), "'a' has 8 bytes, which does not fit its shape"),
        (json.dumps({"a": entry(shape=[-2, -2])}).encode(), "'a' has an impossible place or shape"),
        (json.dumps({"a": entry(data_offsets=[-8, 0])}).encode(), "'a' has an impossible place or shape"),
        (json.dumps({"a": entry(shape=[10**30])}).encode(), "does not fit its shape"),
    ],
)
def test_a_wrong_safetensors_file_is_a_sentence(tmp_path: Path, header: bytes, what: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelLoadError, match=what):
        tensors_of(path)


def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ModelLoadError, match="cut off"):
        tensors_of(path)
