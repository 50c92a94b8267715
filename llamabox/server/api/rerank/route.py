"""POST /v1/rerank and its aliases, with `--rerank`: documents in the order in which they answer a query.

Two dialects: `documents` as Jina, Cohere and llama-box have it, and `texts` as text-embeddings-inference does.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from llamabox.engine.events import Vector
from llamabox.errors import ServerFault
from llamabox.server.api.rerank import ranking
from llamabox.server.api.rerank.fields import parse_ranking
from llamabox.server.fields.body import parse_model
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonArray, dumps


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
    outputs = array("f")
    outputs.frombytes(vector.data)
    if not all(map(math.isfinite, outputs)):
        raise ServerFault(f"the model's score for document {index} is not a number")
    return outputs.tolist()
