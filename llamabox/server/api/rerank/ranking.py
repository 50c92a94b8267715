"""Replies of the rerank routes: scores made of the model's outputs, best first (docs/api.md, Rerank)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llamabox.server.http.json import dumps

SUM_TOLERANCE = 1e-4


def score(outputs: Sequence[float], *, normalize: bool) -> float:
    """How well a document answers, from its pair's outputs: within [0, 1] where normalised, else the first output.

    One output is a logit: its sigmoid. Several are classes; the first means yes, and its probability counts.
    """
    first = outputs[0]
    if not normalize:
        return first
    if len(outputs) == 1:
        return sigmoid(first)
    if min(outputs) >= 0 and abs(sum(outputs) - 1) < SUM_TOLERANCE:
        return min(first, 1.0)  # some architectures' graphs end in the softmax (Qwen3)
    top = max(outputs)
    return math.exp(first - top) / sum(math.exp(output - top) for output in outputs)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


def best(scores: Sequence[float], top_n: int) -> list[int]:
    """Indices of the best, in order. Equal ones stay in the order in which they came."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]


def jina_frame(model: str, n_tokens: int) -> tuple[bytes, bytes]:
    """The bytes before and behind the results of `jina_results`, as Jina, Cohere and llama-box have them."""
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    head, _, tail = dumps({"model": model, "object": "list", "results": [], "usage": usage}).rpartition(b"[]")
    return head + b"[", b"]" + tail


def jina_results(
    order: Sequence[int], scores: Sequence[float], documents: Sequence[str | dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Objects are shown as they came, a text as {"text"}; without `documents` there are numbers only."""
    results: list[dict[str, Any]] = []
    for index in order:
        result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if documents is not None:
            document = documents[index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    return results


def tei_results(order: Sequence[int], scores: Sequence[float], texts: Sequence[str] | None) -> list[dict[str, Any]]:
    """The results as text-embeddings-inference has them: a bare array."""
    if texts is None:
        return [{"index": index, "score": scores[index]} for index in order]
    return [{"index": index, "score": scores[index], "text": texts[index]} for index in order]
