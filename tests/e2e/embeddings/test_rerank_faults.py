"""What a reranker's server must survive: clients that leave, workers that die, many at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.raw_client import RawClient
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, wait_for
from tests.models.questions import ranking_set

LONG = {"query": "Why?", "documents": ["word " * 400] * 500}
"""Minutes of work."""


@pytest.fixture(scope="module")
def server(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("rerank") / "log"
    with ServerProcess(log, "-m", str(reranker), "--rerank", "--metrics") as started:
        yield started


def is_right(server: ServerProcess, which: int) -> bool:
    query, documents, right = ranking_set()[which]
    found: list[dict[str, Any]] = server.ok("/v1/rerank", {"query": query, "documents": documents})["results"]
    return found[0]["index"] == right


def busy(server: ServerProcess) -> float:
    return metric(server, "llamacpp:requests_processing") + metric(server, "llamacpp:requests_deferred")


@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_leaves_takes_its_documents_with_it(server: ServerProcess, reset: bool) -> None:
    client = RawClient(server.port)
    client.post("/v1/rerank", LONG)
    wait_for(lambda: busy(server) > 0, "the documents to be taken up")
    client.leave(reset=reset)
    wait_for(lambda: busy(server) == 0, "nothing to be left")
    assert is_right(server, 0)


def test_a_small_request_overtakes_a_big_one(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.post("/v1/rerank", LONG)
        wait_for(lambda: busy(server) > 0, "the documents to be taken up")
        assert is_right(server, 1)
        assert busy(server) > 0


def test_many_clients_at_once_get_their_own(server: ServerProcess) -> None:
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(lambda which: is_right(server, which), range(20)))


def test_a_worker_that_dies_fails_its_requests_and_is_started_again(server: ServerProcess) -> None:
    replies: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: replies.append(server.post("/v1/rerank", LONG)))
    asking.start()
    wait_for(lambda: busy(server) > 0, "the documents to be taken up")
    os.kill(server.worker_pid(), signal.SIGKILL)
    asking.join(60)
    assert replies[0].status_code == 503
    assert replies[0].json()["error"]["type"] == "unavailable_error"
    server.wait_ready()
    assert is_right(server, 2)
    assert "Traceback" not in server.log
