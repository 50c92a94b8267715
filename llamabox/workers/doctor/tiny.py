"""A made model, small enough to be computed in an instant, and the tokens that it writes.

Two layers of a llama with weights in Q4_0, whose bits come from a hash: it says nonsense, and the same nonsense on
every machine. Attention, the feed-forward network and quantised weights all have a part in it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

N_VOCAB, N_EMBD, N_FF, N_LAYER, N_HEAD, N_CTX = 256, 64, 128, 2, 2, 64
BLOCK = 32
"""Elements of a block of Q4_0, all of which share one factor."""

FACTOR = 1 / 32
"""Of a block: its weights are from -8 to 7 times this."""

SEED = "llamabox doctor 25"
"""One of those with which each token of the answer is far ahead of the next one."""

F32, Q4_0 = 0, 2
PROMPT = (76, 108, 97, 109, 97, 98, 111, 120)
ANSWER = (234, 177, 119, 119, 178, 213, 150, 165, 145, 163, 177, 223)
"""The likeliest tokens behind `PROMPT`. Their logits are 0.14 of the deviation of all above the next ones."""


@contextmanager
def made_model() -> Iterator[Path]:
    """A path of the model's file, which is in memory where the system can do that: no disk need be writable."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("llamabox-doctor")
        with open(descriptor, "wb") as file:
            file.write(model_file())
            file.flush()
            yield Path(f"/proc/self/fd/{descriptor}")
    else:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(model_file())
            file.flush()
            yield Path(file.name)


def model_file() -> bytes:
    """The bytes of a GGUF file, version 3."""
    numbers = {
        "llama.vocab_size": N_VOCAB,
        "llama.context_length": N_CTX,
        "llama.embedding_length": N_EMBD,
        "llama.block_count": N_LAYER,
        "llama.feed_forward_length": N_FF,
        "llama.attention.head_count": N_HEAD,
    }
    values = [_text(key) + struct.pack("<II", 4, number) for key, number in numbers.items()]
    values += [_text(key) + struct.pack("<I", 8) + _text(text) for key, text in _TEXTS.items()]
    values.append(_text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    tensors = _tensors()
    head, data = b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(values)) + b"".join(values), b""
    for name, shape in tensors.items():
        kind = F32 if len(shape) == 1 else Q4_0
        head += _text(name) + struct.pack(f"<I{len(shape)}qIQ", len(shape), *shape, kind, len(data))
        data += _padded(struct.pack(f"<{shape[0]}f", *[1.0] * shape[0]) if kind == F32 else _weights(name, shape))
    return _padded(head) + data


_TEXTS = {"general.architecture": "llama", "tokenizer.ggml.model": "none"}


def _tensors() -> dict[str, tuple[int, ...]]:
    """Shapes in ggml's order: a row's length first."""
    square = (N_EMBD, N_EMBD)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (N_EMBD,),
        "ffn_norm": (N_EMBD,),
        "attn_q": square,
        "attn_k": square,
        "attn_v": square,
        "attn_output": square,
        "ffn_gate": (N_EMBD, N_FF),
        "ffn_up": (N_EMBD, N_FF),
        "ffn_down": (N_FF, N_EMBD),
    }
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (N_EMBD, N_VOCAB), "output.weight": (N_EMBD, N_VOCAB)}
    found["output_norm.weight"] = (N_EMBD,)
    for number in range(N_LAYER):
        found |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found


def _weights(name: str, shape: tuple[int, ...]) -> bytes:
    """Blocks of Q4_0: the factor as float16, and four bits an element."""
    n_blocks = shape[0] * shape[1] // BLOCK
    bits = hashlib.shake_256(f"{SEED} {name}".encode()).digest(n_blocks * BLOCK // 2)
    factor = struct.pack("<e", FACTOR)
    return b"".join(factor + bits[at : at + BLOCK // 2] for at in range(0, len(bits), BLOCK // 2))


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)
