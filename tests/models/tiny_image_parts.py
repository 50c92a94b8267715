"""What goes with the tiny image model: an adapter that one can see, and an upscaler. Both are safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.tiny_image import N_LATENT, TARGET, WIDTH, Array

GREEN = 1
N_FEATURES, N_GROWTH = 64, 32  # of an ESRGAN


def write_safetensors(path: Path, tensors: dict[str, NDArray[np.float16] | NDArray[np.float32]]) -> Path:
    """u64 length | JSON header | raw arrays. Returns `path`."""
    header, at = {}, 0
    for name, array in tensors.items():
        kind = {2: "F16", 4: "F32"}[array.itemsize]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    raw = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(raw)) + raw)
        out.writelines(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    return path


def write_lora(path: Path) -> Path:
    """Green is 1 - 2 * scale of itself, on a scale from -1 to 1: at the scale 1 red becomes yellow."""
    down, up = np.zeros((1, WIDTH), np.float32), np.zeros((N_LATENT, 1), np.float32)
    down[0, TARGET.start + GREEN] = 1
    up[4 * GREEN : 4 * GREEN + 4] = 2  # the layer has -1 there: it takes the target off the latent
    layer = "diffusion_model.final_layer.linear"
    return write_safetensors(path, {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})


def write_upscaler(path: Path) -> Path:
    """An ESRGAN of factor 2 with one block that adds nothing: each pixel becomes four."""
    same = np.zeros((3, 3))
    same[1, 1] = 1
    tensors: dict[str, NDArray[np.float16] | NDArray[np.float32]] = {}

    def convolution(name: str, n_out: int, n_in: int, kernel: Array) -> None:
        weight = np.zeros((n_out, n_in, 3, 3))
        weight[[0, 1, 2], [0, 1, 2]] = kernel
        tensors[f"{name}.weight"] = weight.astype(np.float16)
        tensors[f"{name}.bias"] = np.zeros(n_out, np.float32)

    convolution("conv_first", N_FEATURES, 3, same)
    for part in (1, 2, 3):
        for layer in (1, 2, 3, 4, 5):
            n_out = N_FEATURES if layer == 5 else N_GROWTH
            convolution(f"body.0.rdb{part}.conv{layer}", n_out, N_FEATURES + (layer - 1) * N_GROWTH, 0 * same)
    convolution("conv_body", N_FEATURES, N_FEATURES, 0 * same)
    convolution("conv_up1", N_FEATURES, N_FEATURES, same)
    convolution("conv_hr", N_FEATURES, N_FEATURES, same)
    convolution("conv_last", 3, N_FEATURES, same)
    return write_safetensors(path, tensors)
