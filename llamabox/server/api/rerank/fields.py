"""Fields of a request to rank documents, in either dialect (docs/api.md, Rerank)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, wrong
from llamabox.server.fields.unsupported import Neutral, only, refuse

MAX_DOCUMENTS = 10_000

CUT = "max_tokens_per_doc"

Document = str | dict[str, Any]
"""A text, or an object with "text" and any other fields, which come back with it."""


REFUSED: dict[str, Neutral] = {
    "rank_fields": only(["text"]),
    "max_chunks_per_doc": only(1),
    "truncation_direction": only("Right", "right"),
    "return_embeddings": only(False),
}


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


def parse_ranking(body: dict[str, Any]) -> Ranking:
    """`body` is without nulls. Raises InvalidRequest naming the first field that is wrong."""
    if "query" not in body:
        raise wrong("query", "must be provided: a string")
    query = checks.string("query", body["query"])
    refuse(body, REFUSED)
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
