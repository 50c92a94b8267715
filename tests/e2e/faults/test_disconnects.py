"""Clients that go away, at every point of a request and by every means: the slot is free, nobody else notices."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.near_tie import Oracle, assert_same_or_near_tie
from tests.e2e.raw_client import RawClient
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, n_files, resident, unharmed, wait_for

LONG = {"prompt": "The lighthouse keeper wrote in his book: the wind, the ships, the light. " * 120, "n_predict": 4}
ENDLESS = {"prompt": "Once upon a time", "n_predict": 3000, "ignore_eos": True}
INNOCENT = {
    "prompt": "A short history of bread:",
    "n_predict": 48,
    "temperature": 0,
    "ignore_eos": True,
    "return_tokens": True,
    "cache_prompt": False,
}

CHUNK = 512
"""The most tokens of a prompt that one step takes."""

LAST_STEPS = 3
"""Decodes between the news of an abort in the worker and a free slot: the one that runs, and those not told of yet."""

N_ABORTS = 60
MEMORY_SLACK = 6 << 20


@pytest.fixture(scope="module")
def shared(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """One thread: it needs no neighbour to keep up with it, and nothing here asks for speed.

    And no host memory for evicted prompts, 35 MB each: they would look like a leak.
    """
    return serve("-c", "8192", "-np", "2", "--cache-ram", "0", "--metrics")


@pytest.fixture
def server(shared: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(shared)


def n_decodes(server: ServerProcess) -> float:
    return metric(server, "llamacpp:n_decode_total")


def n_evaluated(server: ServerProcess) -> float:
    return metric(server, "llamacpp:prompt_tokens_total")


def let_news_arrive(server: ServerProcess) -> None:
    """Ask the worker for something short, a few times: what had happened before is known to it afterwards.

    However busy the machine is, an abort takes the way that these questions take, before them.
    """
    for _ in range(3):
        server.ok("/tokenize", {"content": "x"})


def assert_frees_at_once(server: ServerProcess, client: RawClient, reset: bool) -> None:
    """`client` leaves a busy server, and as soon as the worker can know it the slot is free."""
    assert server.busy_slots() == 1
    client.leave(reset=reset)
    let_news_arrive(server)
    before = n_decodes(server)
    server.wait_idle()
    assert n_decodes(server) - before <= LAST_STEPS


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_in_prefill(server: ServerProcess, stream: bool, reset: bool) -> None:
    """With chunks of one batch the whole prompt would be two decodes: somebody else decodes, so chunks are small."""
    with RawClient(server.port) as other, RawClient(server.port) as client:
        other.post("/completion", {**ENDLESS, "stream": True})
        other.read_until(b"data: ")
        client.post("/completion", {**LONG, "stream": stream, "cache_prompt": False})
        wait_for(lambda: server.busy_slots() == 2, "a slot takes the prompt")
        client.leave(reset=reset)
        let_news_arrive(server)
        known = n_evaluated(server)
        wait_for(lambda: server.busy_slots() == 1, "the slot is free")
        assert n_evaluated(server) - known <= LAST_STEPS * CHUNK
        other.read_until(b"data: ")
    server.wait_idle()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_in_mid_stream(server: ServerProcess, path: str, reset: bool) -> None:
    with RawClient(server.port) as client:
        body = {**ENDLESS, "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]}
        client.post(path, body)
        for _ in range(3):
            client.read_until(b"data: ")
        assert_frees_at_once(server, client, reset)


@pytest.mark.parametrize("reset", [False, True])
def test_while_a_plain_answer_is_made(server: ServerProcess, reset: bool) -> None:
    with RawClient(server.port) as client:
        client.post("/completion", ENDLESS)
        wait_for(
            lambda: any(slot["next_token"][0]["n_decoded"] > 2 for slot in server.http.get("/slots").json()),
            "it decodes",
        )
        assert_frees_at_once(server, client, reset)


@pytest.mark.parametrize("reset", [False, True])
def test_right_after_the_headers_of_the_reply(server: ServerProcess, reset: bool) -> None:
    with RawClient(server.port) as client:
        client.post("/completion", {**ENDLESS, "stream": True})
        client.read_until(b"\r\n\r\n")
        assert_frees_at_once(server, client, reset)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("n_sent", [0, 1, 5000])
def test_while_the_body_is_sent(server: ServerProcess, n_sent: int, reset: bool) -> None:
    decodes = n_decodes(server)
    files = n_files(server.process.pid)
    with RawClient(server.port) as client:
        client.post("/completion", LONG, n_sent=n_sent)
        wait_for(lambda: n_files(server.process.pid) > files, "the connection is accepted")
        client.leave(reset=reset)
        wait_for(lambda: n_files(server.process.pid) <= files, "the connection is let go")
    assert n_decodes(server) == decodes


@pytest.mark.parametrize("reset", [False, True])
def test_while_queued(server: ServerProcess, reset: bool) -> None:
    """Two hold the slots; those that wait leave, and neither is ever computed nor keeps the next one waiting."""
    with ExitStack() as stack:
        holders = [stack.enter_context(RawClient(server.port)) for _ in range(2)]
        for holder in holders:
            holder.post("/completion", {**ENDLESS, "stream": True})
            holder.read_until(b"data: ")
        waiting = [stack.enter_context(RawClient(server.port)) for _ in range(6)]
        for i, client in enumerate(waiting):
            client.post("/completion", {**ENDLESS, "stream": i % 2 == 0, "n": 1 + i % 2})
        deferred = "llamacpp:requests_deferred"
        wait_for(lambda: metric(server, deferred) == 9, "they are queued: three of one sequence, three of two")
        for client in waiting:
            client.leave(reset=reset)
        wait_for(lambda: metric(server, deferred) == 0, "they are forgotten")
        assert server.busy_slots() == 2, "a holder lost its slot"
        for holder in holders:
            for _ in range(3):
                holder.read_until(b"data: ")


def test_nobody_waits_behind_a_text_that_takes_long_to_tokenise(server: ServerProcess) -> None:
    """Neither a short prompt nor an abort; and one that is aborted while it is tokenised is never computed."""
    with RawClient(server.port) as slow, RawClient(server.port) as other:
        slow.post("/tokenize", {"content": "a" * 1_500_000})
        for _ in range(20):
            server.http.get("/health")
        other.post("/completion", {**ENDLESS, "stream": True})
        other.read_until(b"data: ")
        assert_frees_at_once(server, other, reset=True)
        let_news_arrive(server)
        decodes = n_decodes(server)
        slow.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.sock.recv(1)
        slow.leave(reset=True)
    assert n_decodes(server) == decodes


def vanish(port: int, seed: int) -> None:
    """One rude visit: connects, does something by halves and is gone."""
    rng = random.Random(seed)
    body: dict[str, Any] = {**ENDLESS, "stream": rng.random() < 0.5}
    path = "/completion"
    with RawClient(port) as client:
        match rng.randrange(8):
            case 0:
                pass
            case 1:
                client.sock.sendall(b"POST /completion HTTP/1.1\r\nHost")
            case 2:
                client.post(path, LONG, n_sent=rng.choice([0, 1, 500]))
            case 3:
                client.sock.sendall(rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n")
            case 4:
                client.post(path, body)
            case 5:
                client.post(path, {**LONG, "prompt": f"{seed} {LONG['prompt']}"})
            case 6:
                client.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True})
                client.read_until(b"HTTP/1.1 200")
            case _:
                client.sock.sendall(b"GET /slots HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        client.leave(reset=rng.random() < 0.5)


def test_sixty_visits_that_break_off_touch_nobody(server: ServerProcess, model: Path) -> None:
    solo = server.ok("/completion", INNOCENT)["tokens"]
    prompt = server.ok("/tokenize", {"content": INNOCENT["prompt"], "add_special": True})["tokens"]
    pids = {"server": server.process.pid, "worker": server.worker_pid()}
    stop = threading.Event()
    streams: list[list[int]] = []

    def innocent() -> None:
        while not stop.is_set() or not streams:
            streams.append([token for event in server.stream("/completion", INNOCENT) for token in event["tokens"]])

    # What first visits allocate for good is no leak, nor are cells that nobody has used before.
    for number in range(2):
        server.ok("/completion", {**LONG, "prompt": f"{number} {LONG['prompt']}", "n_predict": 1, "id_slot": number})
    for seed in range(20):
        vanish(server.port, N_ABORTS + seed)
    server.wait_idle()
    files = {name: n_files(pid) for name, pid in pids.items()}
    memory = {name: resident(pid) for name, pid in pids.items()}
    thread = threading.Thread(target=innocent)
    thread.start()
    try:
        for seed in range(N_ABORTS):
            vanish(server.port, seed)
    finally:
        stop.set()
        thread.join()
    server.wait_idle()
    for name, pid in pids.items():
        wait_for(lambda pid=pid, name=name: n_files(pid) <= files[name], f"the {name} closes its files")  # type: ignore[misc]
        assert resident(pid) < memory[name] + MEMORY_SLACK, name
    different = [tokens for tokens in streams if tokens != solo]
    if different:
        oracle = Oracle(model, 1024)
        try:
            for tokens in different:
                assert_same_or_near_tie(oracle, prompt, tokens, solo)
        finally:
            oracle.close()
