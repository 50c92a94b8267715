"""POST /v1/rerank and its aliases, with `--rerank`: documents in the order in which they answer a query.

Two dialects: `documents` as Jina, Cohere and llama-box have it, and `texts` as text-embeddings-inference does.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.responses import Response

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong
from llamabox.engine.events import Vector
from llamabox.errors import ServerFault
from llamabox.server.api.rerank import ranking
from llamabox.server.fields import unsupported
from llamabox.server.fields.body import parse_model
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonArray, dumps

MAX_DOCUMENTS = 10_000

CUT = "max_tokens_per_doc"

Document = str | dict[str, Any]
"""A text, or an object with "text" and any other fields, which come back with it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A request to rank documents."""

    query: str
    documents: list[Document]
    is_tei: bool
    top_n: int
    normalize: bool
    return_documents: bool
    n_document: int | None  # the most tokens of a document that count; None: all
    truncate: bool  # to what fits

    @property
    def texts(self) -> list[str]:
        """The text of each document."""
        return [document if isinstance(document, str) else document["text"] for document in self.documents]


async def rerank(exchange: Exchange) -> Response:
    """Each pair is scored for itself, so that scores of different requests can be compared."""
    model = parse_model(exchange.body, exchange.hosted.config, exchange.info)
    asked = parse_ranking(exchange.body)
    vectors = await exchange.hosted.client.rank(
        asked.query,
        asked.texts,
        field="texts" if asked.is_tei else "documents",
        n_document=asked.n_document,
        truncate=asked.truncate,
    ).all()
    scores = [ranking.score(_outputs(vector, index), normalize=asked.normalize) for index, vector in enumerate(vectors)]
    order = ranking.best(scores, asked.top_n)
    if asked.is_tei:
        return JsonArray(_items(ranking.tei_results(order, scores, asked.texts if asked.return_documents else None)))
    results = ranking.jina_results(order, scores, asked.documents if asked.return_documents else None)
    head, tail = ranking.jina_frame(model, sum(vector.n_tokens for vector in vectors))
    return JsonArray(_items(results), head=head, tail=tail)


async def _items(results: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The documents may be as long as a body."""
    for result in results:
        yield dumps(result)


def _outputs(vector: Vector, index: int) -> list[float]:
    """The outputs of the model's classifier. Raises ServerFault where one is no number."""
    outputs: list[float] = np.frombuffer(vector.data, np.float32).tolist()
    if not all(map(math.isfinite, outputs)):
        raise ServerFault(f"the model's score for document {index} is not a number")
    return outputs


def parse_ranking(body: dict[str, Any]) -> Ranking:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    if "query" not in body:
        raise wrong("query", "must be provided: a string")
    query = checks.string("query", body["query"])
    unsupported.refuse(body, unsupported.RERANK)
    is_tei = "texts" in body
    if is_tei and "documents" in body:
        raise wrong("texts", "must not stand beside documents: give one of the two")
    documents = _parse_texts(body) if is_tei else _parse_documents(body)
    raw = is_tei and checks.flag(body, "raw_scores", False)
    return Ranking(
        query=query,
        documents=documents,
        is_tei=is_tei,
        top_n=checks.whole(body, "top_n", 1, INT32_MAX, len(documents)),
        normalize=checks.flag(body, "normalize", True) and not raw,
        return_documents=checks.flag(body, "return_text", False)
        if is_tei
        else checks.flag(body, "return_documents", True),
        n_document=checks.whole(body, CUT, 1, INT32_MAX, None),
        truncate=checks.flag(body, "truncate", False),
    )


def _parse_documents(body: dict[str, Any]) -> list[Document]:
    documents = _array(body, "documents", 'strings or objects with "text"')
    for index, document in enumerate(documents):
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            what = 'an object without such a "text"' if isinstance(document, dict) else checks.describe(document)
            raise wrong("documents", f'must hold strings or objects with "text", a string; document {index} is {what}')
    return documents


def _parse_texts(body: dict[str, Any]) -> list[Document]:
    texts = _array(body, "texts", "strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise wrong("texts", f"must hold strings; text {index} is {checks.describe(text)}")
    return texts


def _array(body: dict[str, Any], field: str, items: str) -> list[Any]:
    value = body.get(field)
    if not isinstance(value, list) or not value:
        raise wrong(field, f"must be a non-empty array of {items}")
    if len(value) > MAX_DOCUMENTS:
        raise wrong(field, f"must have at most {MAX_DOCUMENTS} entries, not {len(value)}")
    return value
