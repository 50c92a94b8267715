"""Embeddings as a user meets them: the forms of an input and of a vector, limits, faults, and many at once."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, resident, wait_for

N_EMBD = 384
N_CTX = 512
N_VOCAB = 30522
CLS, SEP = 101, 102
PROMPT_TOKENS = "llamacpp:prompt_tokens_total"

Vector = NDArray[np.float32]


@pytest.fixture(scope="module")
def server(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("embeddings") / "log"
    words = ("-m", str(minilm), "-c", str(2 * N_CTX), "-np", "2", "--embeddings", "--metrics")
    with ServerProcess(log, *words, "-t", "2") as one:  # so that two batches are computed side by side
        yield one


def vectors(server: ServerProcess, given: Any, **fields: Any) -> list[Vector]:
    reply = server.ok("/v1/embeddings", {"input": given, **fields})
    assert reply["object"] == "list"
    assert [item["index"] for item in reply["data"]] == list(range(len(reply["data"])))
    assert {item["object"] for item in reply["data"]} == {"embedding"}
    return [np.array(item["embedding"], np.float32) for item in reply["data"]]


def vector(server: ServerProcess, given: Any, **fields: Any) -> Vector:
    [only] = vectors(server, given, **fields)
    return only


def refusal(server: ServerProcess, body: Any, status: int = 400, path: str = "/v1/embeddings") -> str:
    response = server.post(path, body)
    assert response.status_code == status, response.text
    message: str = response.json()["error"]["message"]
    return message


def tokens_of(server: ServerProcess, text: str) -> list[int]:
    found: list[int] = server.ok("/tokenize", {"content": text, "add_special": True})["tokens"]
    return found


def test_every_form_of_an_input_is_the_same_text(server: ServerProcess) -> None:
    text = "the cat sat"
    ids = tokens_of(server, text)
    assert [ids[0], ids[-1]] == [CLS, SEP]
    expected = vector(server, text)
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-5)
    parts = [{"type": "text", "text": "the c"}, {"type": "text", "text": "at sat"}]
    for form in ([text], ids, [ids], {"prompt_string": text}, [{"prompt_string": text}], [{"content": parts}]):
        assert vector(server, form) == pytest.approx(expected, abs=1e-5)
    assert vector(server, [CLS, "unlike", SEP]).shape == (N_EMBD,)
    together = vectors(server, [text, ids, {"prompt_string": text}, [CLS, 1996, SEP], ""])
    assert len(together) == 5
    assert all(one == pytest.approx(expected, abs=1e-5) for one in together[:3])
    assert server.ok("/v1/embeddings", {"content": text})["data"][0]["embedding"] == pytest.approx(expected, abs=1e-5)


def test_usage_counts_the_tokens_of_all_inputs(server: ServerProcess) -> None:
    before = metric(server, PROMPT_TOKENS)
    usage = server.ok("/v1/embeddings", {"input": ["", "cat", [1, 2, 3]]})["usage"]
    assert usage == {"prompt_tokens": 2 + 3 + 3, "total_tokens": 8}
    assert metric(server, PROMPT_TOKENS) == before + 8


def test_the_model_and_the_route_of_llama_cpp(server: ServerProcess) -> None:
    assert server.ok("/v1/embeddings", {"input": "a", "model": "mine", "user": "me"})["model"] == "mine"
    for path in ("/embeddings", "/embedding"):
        reply = server.ok(path, {"content": ["cat", "dog"]})
        assert [item["index"] for item in reply] == [0, 1]
        assert reply[0]["embedding"][0] == pytest.approx(vector(server, "cat"), abs=1e-5)
        [encoded] = server.ok(path, {"content": "cat", "encoding_format": "base64"})
        assert decoded(encoded["embedding"][0]) == pytest.approx(vector(server, "cat"), abs=1e-5)


def decoded(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_floats_and_base64_are_the_same_numbers(server: ServerProcess) -> None:
    reply = server.ok("/v1/embeddings", {"input": ["cat", "dog"], "encoding_format": "base64"})
    assert {item["encoding_format"] for item in reply["data"]} == {"base64"}
    # A batch is computed anew, in the same way: nothing but the form can differ.
    for item, floats in zip(reply["data"], vectors(server, ["cat", "dog"]), strict=True):
        assert decoded(item["embedding"]).tolist() == floats.tolist()


@pytest.mark.parametrize("n", [1, 100, N_EMBD])
def test_dimensions_are_the_first_ones_at_length_1(server: ServerProcess, n: int) -> None:
    cut = vector(server, "cat")[:n]
    assert vector(server, "cat", dimensions=n) == pytest.approx(cut / np.linalg.norm(cut), abs=1e-5)
    raw = vector(server, "cat", embd_normalize=-1)
    assert vector(server, "cat", embd_normalize=-1, dimensions=n) == pytest.approx(raw[:n], abs=1e-5)


@pytest.mark.parametrize(("norm", "size"), [(0, 32760), (1, 1), (2, 1), (3, 1), (40, 1)])
def test_norms(server: ServerProcess, norm: int, size: float) -> None:
    scaled = vector(server, "cat", embd_normalize=norm)
    assert np.linalg.norm(scaled.astype(np.float64), norm or np.inf) == pytest.approx(size, rel=1e-5)
    raw = vector(server, "cat", embd_normalize=-1)
    assert scaled / np.linalg.norm(scaled) == pytest.approx(raw / np.linalg.norm(raw), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": True}, "input"),
        ({"input": ["a", []]}, "input[1]"),
        ({"input": ["a", ["b", {}]]}, "input[1]"),
        ({"input": ["a", 1.5, "b"]}, "input"),
        ({"input": [[1, -1]]}, "input"),
        ({"input": ["a", "b", [1, N_VOCAB]]}, "input[2]"),
        ({"input": ["a", [1, True]]}, "input[1]"),
        ({"input": {"content": "a string"}}, "content"),
        ({"input": {"content": [{"type": "smell"}]}}, "content"),
        ({"input": {"prompt_string": "a", "multimodal_data": ["x"]}}, "multimodal_data"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": N_EMBD + 1}, "dimensions"),
        ({"input": "a", "dimensions": "8"}, "dimensions"),
        ({"input": "a", "embd_normalize": -2}, "embd_normalize"),
        ({"input": "a", "embd_normalize": 2.5}, "embd_normalize"),
        ({"input": "a", "model": 5}, "model"),
    ],
)
def test_what_is_wrong_is_named(server: ServerProcess, body: dict[str, Any], named: str) -> None:
    assert named in refusal(server, body)
    vector(server, "it still answers")


def test_the_exact_limit_fits_and_one_more_is_refused_with_its_place_and_both_numbers(server: ServerProcess) -> None:
    assert vector(server, [CLS] * N_CTX).shape == (N_EMBD,)
    assert vector(server, [CLS]).shape == (N_EMBD,)
    text = "cat " * (N_CTX - 2)
    assert len(tokens_of(server, text)) == N_CTX
    assert vector(server, text).shape == (N_EMBD,)
    for longer in ([CLS] * (N_CTX + 1), text + "cat"):
        response = server.post("/v1/embeddings", {"input": ["a", "b", longer, "c"]})
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (400, "exceed_context_size_error")
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (N_CTX + 1, N_CTX)
        assert "input 2 is too large to process" in error["message"]
        assert "513 tokens" in error["message"]
        assert "512 fit" in error["message"]


def test_thousands_of_inputs_in_order_while_others_are_answered(server: ServerProcess) -> None:
    texts = [f"number {i}" for i in range(2_000)]
    vectors(server, texts[:250])
    pids = (server.process.pid, server.worker_pid())
    before = sum(map(resident, pids))
    answer: list[Vector] = []
    bulk = threading.Thread(target=lambda: answer.extend(vectors(server, texts)))
    bulk.start()
    n_answered = 0
    while bulk.is_alive():
        vector(server, "somebody else")
        n_answered += 1
    bulk.join()
    assert len(answer) == len(texts)
    assert n_answered > 20, "a small request waits for a batch or two of the big one"
    for i in (0, 1, 1234, 1_998, 1_999):
        assert answer[i] == pytest.approx(vector(server, texts[i]), abs=1e-5)
    # 2,000 vectors are 3 MB, and about 9 as JSON.
    assert sum(map(resident, pids)) - before < 30 << 20


def test_a_client_that_goes_away_leaves_nothing_behind(server: ServerProcess) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/embeddings", json={"input": ["word " * 400] * 2_000}, timeout=1.0)
    for name in ("requests_processing", "requests_deferred"):
        wait_for(lambda name=name: metric(server, f"llamacpp:{name}") == 0, f"{name} to be 0")
    vector(server, "cat")


def test_many_clients_at_once_get_their_own(server: ServerProcess) -> None:
    texts = {f"animal {i}": vector(server, f"animal {i}") for i in range(12)}

    async def ask(http: httpx.AsyncClient, text: str) -> tuple[str, list[float]]:
        reply = await http.post("/v1/embeddings", json={"input": [text, "filler " * (len(text) % 5)]})
        found: list[float] = reply.json()["data"][0]["embedding"]
        return text, found

    async def ask_all() -> list[tuple[str, list[float]]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            return await asyncio.gather(*(ask(http, text) for text in [*texts] * 4))

    for text, found in asyncio.run(ask_all()):
        assert np.array(found) == pytest.approx(texts[text], abs=1e-5)


def test_the_openai_client(server: ServerProcess) -> None:
    expected = vectors(server, ["cat", "dog"])
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        by_default = client.embeddings.create(model="m", input=["cat", "dog"])  # asks for base64, and decodes it
        floats = client.embeddings.create(model="m", input=["cat", "dog"], encoding_format="float")
    for reply in (by_default, floats):
        assert [item.embedding for item in reply.data] == [pytest.approx(one, abs=1e-5) for one in expected]
        assert reply.usage.total_tokens == 6


@pytest.mark.parametrize(
    ("path", "what"),
    [("/v1/chat/completions", "completion"), ("/v1/completions", "completion"), ("/completion", "completion"),
     ("/infill", "infill")],
)  # fmt: skip
def test_an_encoder_does_not_chat(server: ServerProcess, path: str, what: str) -> None:
    response = server.post(path, {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi"})
    assert response.status_code == 403
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == f"You are not allowed to do {what} from this model"


def test_what_it_tells_of_itself(server: ServerProcess) -> None:
    [entry] = server.http.get("/v1/models").json()["data"]
    assert (entry["meta"]["n_ctx"], entry["meta"]["n_embd"]) == (N_CTX, N_EMBD)
    [model] = server.http.get("/v1/models").json()["models"]
    assert model["capabilities"] == ["embedding"]
    props = server.http.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == N_CTX
    assert props["pooling"] == "mean"


@pytest.mark.parametrize("options", ["-np 256 -c 65536 -t 2", "-fa off", "-c 0", "-ub 32 -b 64", "-np 4 -c 400"])
def test_whatever_the_sizes_every_passage_up_to_a_slots_context_fits(
    minilm: Path, tmp_path: Path, options: str
) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(minilm), "--embeddings", *options.split()) as server:
        n_ctx = server.http.get("/v1/models").json()["data"][0]["meta"]["n_ctx"]
        assert len(vectors(server, ["a cat", [CLS] * 60, [CLS] * n_ctx])) == 3
        assert f"at most {n_ctx} fit" in refusal(server, {"input": [CLS] * (n_ctx + 1)})
        assert server.health() == 200


def test_a_worker_that_dies_fails_what_it_embeds_and_nothing_later(server: ServerProcess) -> None:
    statuses: list[int] = []
    body = {"input": ["word " * 400] * 500}
    bulk = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", body).status_code))
    bulk.start()
    wait_for(lambda: metric(server, "llamacpp:requests_deferred") > 0, "the passages to wait")
    os.kill(server.worker_pid(), signal.SIGKILL)
    bulk.join()
    assert statuses == [503]
    server.wait_ready()
    vector(server, "cat")


def test_without_the_flag_an_encoder_is_not_served(minilm: Path, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "log", "-m", str(minilm), wait=False)
    assert server.process.wait(60) == 1
    assert "give --embeddings" in server.log


def test_without_pooling_each_token_has_its_vector(minilm: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "log", "-m", str(minilm), "--embeddings", "--pooling", "none") as server:
        [first, second] = server.ok("/embeddings", {"input": ["the cat sat", "dog"]})
        rows = np.array(first["embedding"], np.float32)
        assert rows.shape == (5, N_EMBD)
        assert np.abs(np.linalg.norm(rows, axis=1) - 1).min() > 1e-3, "they are left as they are"
        assert np.array(second["embedding"]).shape == (3, N_EMBD)
        assert "pooling" in refusal(server, {"input": "the cat sat"})
        [scaled] = server.ok("/embeddings", {"input": "the cat sat", "embd_normalize": 2})
        assert np.linalg.norm(np.array(scaled["embedding"]), axis=1) == pytest.approx(1, abs=1e-5)
