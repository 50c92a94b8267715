"""A model over three machines: what it says, what is told of it, and what happens when one of them goes away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, wait_for
from tests.lending.hosts import WITHIN, Host, Hosts
from tests.models.experts import with_experts

PROMPTS = ("Once upon a time", "def add(a, b):\n")
LAYERS = 20
"""Of 31 with the output: ten for each of two servers of the same memory, the rest stays here."""

SAME_ARITHMETIC = ("--no-repack", "-fa", "off")
"""Weights that lie on an RPC server are not packed, and ggml's own server has none of our kernels: other low bits."""

BOTH = pytest.mark.parametrize("hosts", ["llamabox", "ggml"], indirect=True)

BACK_WITHIN = 12.0
"""Seconds from the moment that a server can be reached again until the box serves, beside those that it takes to load.
"""


@contextmanager
def box(log: Path, model: Path, hosts: Hosts, *words: str) -> Iterator[ServerProcess]:
    arguments = ("-m", str(model), "--rpc", hosts.endpoints, "-ngl", str(LAYERS), "--slots", *words)
    with ServerProcess(log, *arguments) as server:
        yield server


def greedy(server: ServerProcess) -> list[str]:
    body = {"n_predict": 48, "temperature": 0}
    return [server.ok("/completion", {**body, "prompt": prompt})["content"] for prompt in PROMPTS]


class Stream(threading.Thread):
    """One request whose answer is streamed; `events` are those of its end."""

    def __init__(self, server: ServerProcess, prompt: str, n_predict: int = 400) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.events: list[dict[str, Any]] = []
        self._url = server.url
        self._body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": True, "stream": True}
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", f"{self._url}/completion", json=self._body, timeout=120) as response:
            if response.status_code != 200:
                response.read()
                self.events.append(response.json())
                return
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
                    self.begun.set()

    def end(self) -> dict[str, Any]:
        self.join(90)
        assert not self.is_alive(), "the stream has no end"
        return self.events[-1]


def refused(server: ServerProcess, with_text: str, seconds: float = WITHIN) -> None:
    """Until /health is a 503 that says this."""
    deadline = time.monotonic() + seconds
    while True:
        response = server.http.get("/health")
        if response.status_code == 503 and with_text in response.text:
            return
        assert time.monotonic() < deadline, f"{response.status_code} {response.text}\n{server.log}"
        time.sleep(0.05)


def served_again(server: ServerProcess, since: float, loading: float) -> None:
    """`loading` is the time that the first start took."""
    while server.health() != 200:
        assert time.monotonic() < since + BACK_WITHIN + loading, server.log
        time.sleep(0.05)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, model: Path) -> list[str]:
    """What the model says on one machine."""
    log = tmp_path_factory.mktemp("one") / "log"
    with ServerProcess(log, "-m", str(model), *SAME_ARITHMETIC) as server:
        return greedy(server)


@BOTH
def test_a_model_over_three_machines_says_what_it_says_on_one(
    tmp_path: Path, model: Path, hosts: Hosts, expected: list[str]
) -> None:
    hosts.serve()
    with box(tmp_path / "three.log", model, hosts, *SAME_ARITHMETIC) as server:
        assert greedy(server) == expected
        meta = server.http.get("/v1/models").json()["data"][0]["meta"]
        here, first, second = meta["split"]
        assert [part["n_layers"] for part in (here, first, second)] == [11, 10, 10]
        assert [part["server"] for part in (here, first, second)] == ["", hosts[0].endpoint, hosts[1].endpoint]
        assert [part["device"] for part in (here, first, second)] == ["CPU", "RPC0", "RPC1"]
        assert all(part["size"] > 20 << 20 for part in meta["split"])
        log = server.log
    for host in (hosts[0], hosts[1]):
        assert f"RPC server {host.endpoint}, device 0: " in log, "what it has"
        assert f"({host.endpoint}) 10 layers" in log, "and what it got"


def test_shares_and_devices_are_the_users_to_choose(tmp_path: Path, model: Path, hosts: Hosts) -> None:
    hosts.serve()
    for words, expected in (
        (("-ts", "3,1"), {"CPU": 11, "RPC0": 15, "RPC1": 5}),
        (("--device", "RPC1"), {"CPU": 11, "RPC1": 20}),
        (("-sm", "none", "-mg", "1"), {"CPU": 11, "RPC1": 20}),
        (("--device", "none"), {"CPU": 31}),
    ):
        with box(tmp_path / "box.log", model, hosts, *words) as server:
            split = server.http.get("/v1/models").json()["data"][0]["meta"]["split"]
            assert {part["device"]: part["n_layers"] for part in split} == expected, words


def test_the_weights_of_experts_stay_where_the_user_wants(tmp_path: Path, model: Path, hosts: Hosts) -> None:
    """Of a mixture whose experts are three quarters of its weights."""
    mixture = with_experts(model, tmp_path / "mixture.gguf", n_experts=4, n_used=2)
    hosts.serve()
    sizes = []
    for words in ((), ("-ncmoe", "20"), ("-ot", r"_exps\.=CPU")):
        with box(tmp_path / "box.log", mixture, hosts, "-ngl", "all", *words) as server:
            split = server.http.get("/v1/models").json()["data"][0]["meta"]["split"]
            assert sum(part["n_layers"] for part in split if part["server"]) == 31, words
            sizes.append(sum(part["size"] for part in split if part["server"]))
            assert server.ok("/completion", {"prompt": PROMPTS[0], "n_predict": 8})["content"]
    whole, third, none = sizes
    assert none < third < whole
    assert none < 0.4 * whole


@pytest.mark.parametrize(("hosts", "how"), [("ggml", "killed"), ("llamabox", "unplugged")], indirect=["hosts"])
def test_the_box_survives_the_loss_of_a_machine(how: str, tmp_path: Path, model: Path, hosts: Hosts) -> None:
    """Four streams get an error, two that waited are served when the machine is back, and nobody has to do a thing.

    The kernel ends the connections of a killed server, and a wire that is cut carries no word of any: so it does not
    matter which one that is, but one of ours has to get rid of its client, too.
    """
    hosts.serve()
    begun = time.monotonic()
    with box(tmp_path / "box.log", model, hosts, "-np", "4", "-c", "2048", "--metrics") as server:
        loading = time.monotonic() - begun
        running = [Stream(server, f"Story {i}:") for i in range(4)]
        for stream in running:
            assert stream.begun.wait(WITHIN), server.log
        queued = [Stream(server, f"Later {i}:", 8) for i in range(2)]
        wait_for(lambda: metric(server, "llamacpp:requests_deferred") == 2, "two wait")
        lose(hosts[1], how)
        for stream in running:
            error = stream.end()["error"]
            assert error["code"] == 503, error
        refused(server, f"The RPC server {hosts[1].endpoint} is away")
        assert server.post("/completion", {"prompt": "Hello"}).status_code == 503
        bring_back(hosts[1], how)
        served_again(server, time.monotonic(), loading)
        for stream in queued:
            end = stream.end()
            assert end.get("stop") is True, f"what had not begun was served in the end: {end}"
        assert server.ok("/completion", {"prompt": "Hello", "n_predict": 4, "temperature": 0})["content"]


def lose(host: Host, how: str) -> None:
    if how == "killed":
        host.kill()
    else:
        host.wire("down")


def bring_back(host: Host, how: str) -> None:
    if how == "killed":
        host.serve()
    else:
        host.wire("up")


def test_an_idle_box_notices_too(tmp_path: Path, model: Path, hosts: Hosts) -> None:
    """Nobody has to lose a request for it."""
    hosts.serve()
    begun = time.monotonic()
    with box(tmp_path / "box.log", model, hosts) as server:
        loading = time.monotonic() - begun
        hosts[0].kill()
        refused(server, f"The RPC server {hosts[0].endpoint} is away: connection refused")
        hosts[0].serve()
        served_again(server, time.monotonic(), loading)


def test_a_server_that_is_not_there_at_first_is_a_clear_error(tmp_path: Path, model: Path, hosts: Hosts) -> None:
    hosts[0].serve()
    arguments = ("-m", str(model), "--rpc", hosts.endpoints)
    with ServerProcess(tmp_path / "box.log", *arguments, wait=False) as server:
        assert server.process.wait(WITHIN) == 1
        last = server.log.splitlines()[-1]
        assert f"--rpc {hosts[1].endpoint}: connection refused" in last
        assert hosts[0].endpoint not in last
