"""The made model writes what its definition says, and a child tells what it found before it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.workers.doctor import tiny

Matrix = NDArray[np.float64]


def matrix(name: str, file: bytes) -> Matrix:
    """A tensor of the file, one row an output: found by its bits, which are a digest of its name."""
    n_in, n_out = SHAPES[name.split(".")[-1]]
    start = file.index(tiny_weights(name, n_in * n_out))
    blocks = np.frombuffer(file, np.uint8, n_in * n_out // 32 * 18, start).reshape(-1, 18)
    factors = blocks[:, :2].copy().view(np.float16).astype(np.float64)
    bits = blocks[:, 2:]
    return (factors * (np.concatenate([bits & 15, bits >> 4], axis=1) - 8.0)).reshape(n_out, n_in)


SHAPES = {
    **dict.fromkeys(("token_embd", "output"), (64, 256)),
    **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (64, 64)),
    "ffn_gate": (64, 128),
    "ffn_up": (64, 128),
    "ffn_down": (128, 64),
}


def tiny_weights(name: str, n: int) -> bytes:
    """The first blocks of a tensor, as tiny.py's docstring tells them: the factor, and bits of a hash."""
    import hashlib

    bits = hashlib.shake_256(f"{tiny.SEED} {name}.weight".encode()).digest(n // 2)
    factor = np.float16(tiny.FACTOR).tobytes()
    return b"".join(factor + bits[at : at + 16] for at in range(0, 64, 16))


def normed(x: Matrix) -> Matrix:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def turned(x: Matrix) -> Matrix:
    """Rotary positions of llama: neighbours are pairs. Shape [positions, heads, 32]."""
    angles = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(16) / 16)
    turn = np.exp(1j * angles)[:, None, :]
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def next_token(tokens: list[int], weights: dict[str, Matrix]) -> int:
    """By the definition of a llama, in float64 and without a cache."""
    n = len(tokens)
    x = weights["token_embd"][tokens]
    for layer in range(2):
        w = {name: weights[f"blk.{layer}.{name}"] for name in SHAPES if name not in ("token_embd", "output")}
        h = normed(x)
        q, k, v = ((h @ w[name].T).reshape(n, 2, 32) for name in ("attn_q", "attn_k", "attn_v"))
        scores = np.einsum("ihd,jhd->hij", turned(q), turned(k)) / np.sqrt(32)
        scores += np.triu(np.full((n, n), -np.inf), 1)
        part = np.exp(scores - scores.max(axis=-1, keepdims=True))
        part /= part.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", part, v).reshape(n, 64) @ w["attn_output"].T
        h = normed(x)
        gate = h @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
    return int(np.argmax(normed(x)[-1] @ weights["output"].T))


def test_the_answer_is_what_the_definition_of_a_llama_says() -> None:
    file = tiny.model_file()
    names = ["token_embd", "output", *(f"blk.{i}.{name}" for i in range(2) for name in list(SHAPES)[2:])]
    weights = {name: matrix(name, file) for name in names}
    tokens = list(tiny.PROMPT)
    for _ in tiny.ANSWER:
        tokens.append(next_token(tokens, weights))
    assert tuple(tokens[len(tiny.PROMPT) :]) == tiny.ANSWER


def examined(*words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "llamabox.workers.doctor.examine", *words]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_libllama_and_the_devices_are_tried(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    whole.write_bytes(tiny.model_file())
    cut.write_bytes(tiny.model_file()[:-4096])
    said = examined("text", "", str(whole), str(cut))
    found = {line["step"]: line for line in said if "step" in line}
    assert [line["begin"] for line in said if "begin" in line] == list(found), "a step is told before it begins"
    assert found["compute CPU"]["tokens"] == list(tiny.ANSWER)
    assert "AVX" in found["devices"]["system_info"] or "NEON" in found["devices"]["system_info"]
    assert found[f"file {whole}"]["architecture"] == "llama"
    assert found[f"file {whole}"]["n_bytes"] > 50_000
    assert "cut off" in found[f"file {cut}"]["message"]


@pytest.mark.parametrize("library", ["text", "images"])
def test_steps_behind_a_failed_one_are_left_out(library: str, tmp_path: Path) -> None:
    *_, last = examined(library, str(tmp_path))
    assert last["error"] == "NativeMissing"
    assert str(tmp_path) in last["message"]
