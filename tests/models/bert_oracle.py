"""BERT in numpy, written from the paper: what the vectors of a sentence encoder ought to be, and a reranker's number.

All in float32 with the published weights; one text at a time, so that nothing can be padded or mixed up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.models.minilm import N_LAYER, Encoder
from tests.models.wordpiece import WordPiece

Array = NDArray[np.float32]


class BertOracle:
    """Computes what `encoder` makes of texts."""

    def __init__(self, encoder: Encoder) -> None:
        self.tokenizer = WordPiece(encoder.vocab)
        self._weights = encoder.weights
        self._n_head = int(encoder.config["num_attention_heads"])
        self._eps = float(encoder.config["layer_norm_eps"])

    def embedding(self, text: str) -> Array:
        """The mean of the rows, of length 1."""
        mean = self.rows(self.tokenizer.encode(text)).mean(axis=0)
        return mean / np.linalg.norm(mean)

    def score(self, query: str, document: str) -> float:
        """Of a reranker: its head's number for `[CLS] query [SEP] document`, from the [CLS] row."""
        tokens = self.tokenizer.encode(query) + self.tokenizer.content(document)
        head, bias = self._weights["head.weight"], self._weights["head.bias"]
        return float(head[0] @ self.rows(tokens)[0] + bias[0])

    def rows(self, tokens: list[int]) -> Array:
        """The last layer's output, a row for each token."""
        table = self._weights
        x = table["embeddings.word_embeddings.weight"][tokens]
        x = x + table["embeddings.position_embeddings.weight"][: len(tokens)]
        x = x + table["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for i in range(N_LAYER):
            layer = f"encoder.layer.{i}"
            attended = self._linear(self._attention(x, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
            x = self._norm(x + attended, f"{layer}.attention.output.LayerNorm")
            fed = self._linear(gelu(self._linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
            x = self._norm(x + fed, f"{layer}.output.LayerNorm")
        return x

    def _attention(self, x: Array, name: str) -> Array:
        """softmax(q k / sqrt(width of a head)) v, each head for itself; every token sees every other."""
        n_tokens, n_embd = x.shape
        q, k, v = (
            self._linear(x, f"{name}.{part}").reshape(n_tokens, self._n_head, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        logits = q @ k.swapaxes(1, 2) / np.sqrt(np.float32(n_embd // self._n_head))
        share = np.exp(logits - logits.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        return (share @ v).swapaxes(0, 1).reshape(n_tokens, n_embd)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._eps))
        return centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """x Φ(x), Φ by Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most."""
    z = np.abs(x) / np.sqrt(np.float32(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-(z**2)))
    return (0.5 * x * (1 + erf)).astype(np.float32)
