"""A reranker as its users have it: its scores against the oracle's, its order, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.server_process import ServerProcess
from tests.models.bert_oracle import BertOracle
from tests.models.gguf_edit import with_strings
from tests.models.minilm import Encoder, as_reranker, write_encoder
from tests.models.questions import ranking_set

QUERY = "What is the capital of France?"
DOCUMENTS = ["Bananas are yellow.", "Paris is the capital of France.", "The Great Wall is in China."]


@pytest.fixture(scope="module")
def server(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("rerank") / "log"
    with ServerProcess(log, "-m", str(reranker), "--rerank", "-a", "judge") as started:
        yield started


@pytest.fixture(scope="module")
def oracle(encoder: Encoder) -> BertOracle:
    return BertOracle(as_reranker(encoder))


def ranked(server: ServerProcess, query: str, documents: list[Any], **fields: Any) -> list[dict[str, Any]]:
    body = {"query": query, "documents": documents, **fields}
    results: list[dict[str, Any]] = server.ok("/v1/rerank", body)["results"]
    return results


def scores(results: list[dict[str, Any]]) -> dict[int, float]:
    return {result["index"]: result["relevance_score"] for result in results}


def refused(server: ServerProcess, **fields: Any) -> dict[str, Any]:
    response = server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, **fields})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


def test_the_document_that_answers_comes_first(server: ServerProcess) -> None:
    sets = ranking_set()
    n_right = 0
    for query, documents, right in sets:
        results = ranked(server, query, documents)
        found = [result["relevance_score"] for result in results]
        assert sorted(scores(results)) == list(range(len(documents)))
        assert found == sorted(found, reverse=True)
        assert all(0 <= one <= 1 for one in found)
        n_right += results[0]["index"] == right
    assert n_right >= 0.9 * len(sets)


def test_scores_are_the_oracles(server: ServerProcess, oracle: BertOracle) -> None:
    query, documents, _ = ranking_set()[0]
    documents = [*documents, "", "東京は日本の首都です。 😀", "long " * 400, "[SEP] {query} [CLS]"]
    raw = scores(ranked(server, query, documents, normalize=False))
    normalised = scores(ranked(server, query, documents))
    for index, document in enumerate(documents):
        assert raw[index] == pytest.approx(oracle.score(query, document), abs=0.02), document
        assert normalised[index] == pytest.approx(1 / (1 + math.exp(-raw[index])), abs=1e-4)


def test_a_score_does_not_depend_on_the_other_documents(server: ServerProcess) -> None:
    together = scores(ranked(server, QUERY, DOCUMENTS))
    for index, document in enumerate(DOCUMENTS):
        [alone] = ranked(server, QUERY, [document])
        assert alone["relevance_score"] == pytest.approx(together[index], abs=1e-4)
    same = scores(ranked(server, QUERY, DOCUMENTS[:1] * 5))
    assert max(same.values()) - min(same.values()) < 1e-4


@pytest.mark.parametrize(("top_n", "n_results"), [(None, 3), (1, 1), (2, 2), (3, 3), (99, 3)])
def test_top_n_cuts_the_list(server: ServerProcess, top_n: int | None, n_results: int) -> None:
    results = ranked(server, QUERY, DOCUMENTS, top_n=top_n)
    assert len(results) == n_results
    assert results[0]["index"] == 1


def test_documents_come_back_as_they_were_given(server: ServerProcess) -> None:
    given: list[Any] = [{"text": DOCUMENTS[0], "id": 7}, DOCUMENTS[1], {"text": DOCUMENTS[2]}]
    results = ranked(server, QUERY, given)
    assert {result["index"]: result["document"] for result in results} == {
        0: given[0], 1: {"text": DOCUMENTS[1]}, 2: given[2],
    }  # fmt: skip
    assert scores(results) == pytest.approx(scores(ranked(server, QUERY, DOCUMENTS)), abs=1e-4)
    assert all("document" not in result for result in ranked(server, QUERY, given, return_documents=False))


def test_texts_are_the_other_dialect(server: ServerProcess) -> None:
    expected = scores(ranked(server, QUERY, DOCUMENTS))
    plain = server.ok("/rerank", {"query": QUERY, "texts": DOCUMENTS})
    assert [one["index"] for one in plain] == [one["index"] for one in ranked(server, QUERY, DOCUMENTS)]
    assert {one["index"]: one["score"] for one in plain} == pytest.approx(expected, abs=1e-4)
    full = server.ok("/rerank", {"query": QUERY, "texts": DOCUMENTS, "return_text": True, "raw_scores": True})
    assert all(one["text"] == DOCUMENTS[one["index"]] for one in full)
    raw = scores(ranked(server, QUERY, DOCUMENTS, normalize=False))
    assert {one["index"]: one["score"] for one in full} == pytest.approx(raw, abs=1e-2)


def test_usage_counts_each_pair_with_its_special_tokens(server: ServerProcess, oracle: BertOracle) -> None:
    reply = server.ok("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS})
    n_query = len(oracle.tokenizer.encode(QUERY))
    n_tokens = sum(n_query + len(oracle.tokenizer.content(document)) for document in DOCUMENTS)
    assert reply["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}


def test_hundreds_of_documents(server: ServerProcess) -> None:
    documents = [f"Bananas are yellow, says book {i}." for i in range(400)]
    documents[217] = DOCUMENTS[1]
    results = ranked(server, QUERY, documents, top_n=3)
    assert results[0]["index"] == 217
    assert len(results) == 3


def test_empty_texts_have_a_score(server: ServerProcess) -> None:
    for query, document in (("", ""), (QUERY, ""), ("", DOCUMENTS[1])):
        [result] = ranked(server, query, [document])
        assert 0 <= result["relevance_score"] <= 1


def test_a_document_that_fills_the_context_fits_and_one_token_more_does_not(
    server: ServerProcess, oracle: BertOracle
) -> None:
    n_room = 512 - len(oracle.tokenizer.encode(QUERY))
    [full] = ranked(server, QUERY, ["cat " * n_room])
    assert 0 <= full["relevance_score"] <= 1
    error = refused(server, documents=[DOCUMENTS[0], "cat " * (n_room + 1)])
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (513, 512)
    assert "document 1" in error["message"]
    assert "513" in error["message"]
    assert "512" in error["message"]
    long = "A document of ten thousand characters. " * 257
    assert refused(server, documents=[*DOCUMENTS, long])["n_prompt_tokens"] > 1000
    assert server.post("/v1/rerank", {"query": long, "documents": DOCUMENTS}).status_code == 400
    assert ranked(server, QUERY, DOCUMENTS)[0]["index"] == 1


def test_a_long_document_can_be_cut(server: ServerProcess, oracle: BertOracle) -> None:
    long = "Paris is the capital of France. " + "A cat sat on a mat 😀. " * 400
    n_query = len(oracle.tokenizer.encode(QUERY))
    for fields, n_tokens in (({"truncate": True}, 512), ({"max_tokens_per_doc": 7}, n_query + 7)):
        reply = server.ok("/v1/rerank", {"query": QUERY, "documents": [long, "b"], "normalize": False, **fields})
        assert reply["usage"]["prompt_tokens"] == n_tokens + n_query + 1
    first = scores(ranked(server, QUERY, [long], normalize=False, max_tokens_per_doc=7))[0]
    assert first == pytest.approx(oracle.score(QUERY, "Paris is the capital of France."), abs=0.02)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": 123}, "documents"),
        ({"documents": [1, 2, 3]}, "documents"),
        ({"documents": ["a", None]}, "documents"),
        ({"documents": [["a"]]}, "documents"),
        ({"documents": [{}]}, "documents"),
        ({"documents": [{"text": 1}]}, "documents"),
        ({"documents": [{"text": None}]}, "documents"),
        ({"documents": ["a"] * 10_001}, "documents"),
        ({"texts": ["a"]}, "texts"),
        ({"documents": None, "texts": []}, "texts"),
        ({"documents": None, "texts": [{"text": "a"}]}, "texts"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
        ({"normalize": "yes"}, "normalize"),
        ({"documents": None, "texts": ["a"], "return_text": 1}, "return_text"),
        ({"documents": None, "texts": ["a"], "raw_scores": 0}, "raw_scores"),
        ({"model": 5}, "model"),
        ({"truncate": "yes"}, "truncate"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"max_tokens_per_doc": "all"}, "max_tokens_per_doc"),
        ({"rank_fields": ["title"]}, "rank_fields"),
    ],
)
def test_a_wrong_field_is_named(server: ServerProcess, fields: dict[str, Any], named: str) -> None:
    error = refused(server, **fields)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"Field '{named}'")


def test_a_model_may_bring_a_template(
    reranker: Path, oracle: BertOracle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("template")
    template = "[CLS]question: {query}[SEP]text: {document}."
    path = with_strings(reranker, folder / "m.gguf", {"tokenizer.chat_template.rerank": template})
    try:
        with ServerProcess(folder / "log", "-m", str(path), "--rerank", "--no-warmup") as server:
            found = scores(ranked(server, QUERY, DOCUMENTS, normalize=False))
    finally:
        path.unlink()
    for index, document in enumerate(DOCUMENTS):
        expected = oracle.score(f"question: {QUERY}", f"text: {document}.")
        assert found[index] == pytest.approx(expected, abs=0.02)


def test_of_several_classes_the_first_ones_probability_counts(
    server: ServerProcess, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a class with the logit 0, softmax is the sigmoid of the other."""
    folder = tmp_path_factory.mktemp("classes")
    judge = as_reranker(encoder)
    head, bias = judge.weights["head.weight"], judge.weights["head.bias"]
    judge.weights["head.weight"] = np.concatenate([head, np.zeros_like(head)])
    judge.weights["head.bias"] = np.concatenate([bias, np.zeros_like(bias)])
    path = write_encoder(folder / "m.gguf", judge)
    try:
        with ServerProcess(folder / "log", "-m", str(path), "--rerank", "--no-warmup") as classes:
            found = scores(ranked(classes, QUERY, DOCUMENTS))
    finally:
        path.unlink()
    assert found == pytest.approx(scores(ranked(server, QUERY, DOCUMENTS)), abs=1e-4)


def test_a_reranker_embeds_but_does_not_talk(server: ServerProcess) -> None:
    for path, body in (("/v1/chat/completions", {"messages": []}), ("/completion", {"prompt": "a"})):
        response = server.post(path, body)
        assert (response.status_code, response.headers["content-type"]) == (403, "text/plain; charset=utf-8")
        assert response.text == "You are not allowed to do completion from this model"
    [score] = server.ok("/v1/embeddings", {"input": "a"})["data"][0]["embedding"]
    assert abs(score) not in (0, 1), "of one number nothing but the sign would be left"


def test_an_encoder_that_ranks_nothing_is_told_apart_at_the_start(
    minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("encoder") / "log"
    with ServerProcess(log, "-m", str(minilm), "--rerank", wait=False) as server:
        assert server.process.wait(60) == 1
    assert "is no reranker: it has no classifier, which --rerank needs" in server.log
    assert "Traceback" not in server.log
