"""What web pages may do: which origins, with which headers, under which name of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient

from llamabox.server.hosted.config import ModelConfig
from llamabox.server.http.middleware.origins import is_same_origin
from llamabox.server.listening.config import ListenConfig
from tests.server.fake_client import FakeTextClient, saying
from tests.server.harness import running, text_app

PAGE = "http://page.example"
ORIGIN = {"Origin": PAGE}
BODY = {"prompt": "a"}


def browser(config: ListenConfig | None = None, client: FakeTextClient | None = None) -> TestClient:
    return TestClient(text_app(client or FakeTextClient(saying("a", n_cached=2)), config))


@pytest.mark.parametrize("config", [ListenConfig(api_keys=frozenset({"secret"})), ModelConfig()])
def test_preflights_need_no_key_on_any_path(config: ListenConfig) -> None:
    with browser(config) as http:
        for path in ("/v1/chat/completions", "/nothing"):
            asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-stainless-os,x-a"}
            reply = http.options(path, headers={**ORIGIN, **asked})
            assert (reply.status_code, reply.content) == (200, b"")
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in reply.headers
            assert reply.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
            allowed = [name.strip().lower() for name in reply.headers["access-control-allow-headers"].split(",")]
            assert {"authorization", "content-type", "x-api-key", "x-stainless-os", "x-a"} <= set(allowed)
            assert "*" not in allowed, "it would not cover Authorization"


@pytest.mark.parametrize("asked", ["", "a b", "a: b", "a\tb,", ",", "(x)"])
def test_a_preflight_that_asks_for_what_is_no_header(asked: str) -> None:
    with browser() as http:
        reply = http.options("/completion", headers={**ORIGIN, "Access-Control-Request-Headers": asked})
        assert reply.headers["access-control-allow-headers"].endswith("X-Request-Tokens-Per-Second")


@pytest.mark.parametrize(
    ("allowed", "origin", "may"),
    [
        (("localhost",), "http://localhost", True),
        (("localhost",), "https://localhost:8443", True),
        (("localhost",), "http://127.0.0.1:5173", True),
        (("localhost",), "http://[::1]:80", True),
        (("localhost",), "http://localhost.evil.example", False),
        (("localhost",), "http://localhost:80.evil.example", False),
        (("localhost",), "http://evil.example/localhost", False),
        (("localhost",), "null", False),
        (("https://a.example", "http://b.example:81"), "https://A.example", True),
        (("https://a.example", "http://b.example:81"), "http://b.example:81", True),
        (("https://a.example", "http://b.example:81"), "http://b.example", False),
        (("https://a.example", "http://b.example:81"), "http://a.example", False),
        (("https://a.example", "localhost"), "http://localhost:1", True),
        (("https://a.example", "*"), "https://a.example", True),
    ],
)
def test_named_pages_may_call_and_others_do_nothing(allowed: tuple[str, ...], origin: str, may: bool) -> None:
    client = FakeTextClient(saying("a"))
    with browser(ListenConfig(cors_origins=allowed), client) as http:
        for reply, status in (
            (http.options("/completion", headers={"Origin": origin}), 200),
            (http.get("/nothing", headers={"Origin": origin}), 404),
            (http.post("/completion", json=BODY, headers={"Origin": origin}), 200),
            (http.post("/completion", content=b'{"prompt": "a"}', headers={"Origin": origin}), 200),
        ):
            assert reply.status_code == (status if may else 403)
            assert reply.headers.get("access-control-allow-origin") == (origin if may else None)
            assert reply.headers.get("access-control-allow-credentials") == ("true" if may else None)
            assert "Origin" in reply.headers["vary"]
            if not may:
                assert "--cors-origins" in reply.json()["detail"]
        assert len(client.submits) == (2 if may else 0)
        assert http.post("/completion", json=BODY).status_code == 200, "a program says no Origin"
        assert http.get("/health").headers["vary"] == "Origin", "a cache must not mix these up"


def test_any_page_may_call_where_none_is_named() -> None:
    with browser() as http:
        for reply in (http.post("/completion", json=BODY, headers=ORIGIN), http.get("/nothing", headers=ORIGIN)):
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in reply.headers
            assert "vary" not in reply.headers
        assert "access-control-allow-origin" not in http.get("/health").headers


SETTINGS: list[tuple[str, Any]] = [
    ("/slots/0?action=erase", {}), ("/slots/0?action=save", {"filename": "x"}), ("/lora-adapters", []), ("/props", {}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), SETTINGS)
@pytest.mark.parametrize("prefix", ["", "/a"])
def test_settings_of_a_server_without_a_key_are_for_its_own_pages(path: str, body: object, prefix: str) -> None:
    path = prefix + path
    with browser(ListenConfig(api_prefix=prefix)) as http:
        asked = {"Access-Control-Request-Method": "POST"}
        for origin in (PAGE, "null", "http://testserver.example", "http://testserver:81", "https://testserver:80"):
            for reply in (
                http.post(path, json=body, headers={"Origin": origin}),
                http.options(path, headers={"Origin": origin, **asked}),
            ):
                assert reply.status_code == 403
                assert "--api-key" in reply.json()["detail"]
                assert "access-control-allow-origin" not in reply.headers
        free = http.post(path, json=body).status_code
        assert free != 403
        for origin in ("http://testserver", "http://testserver:80", "https://testserver"):
            assert http.post(path, json=body, headers={"Origin": origin}).status_code == free
        assert http.get(path, headers=ORIGIN).status_code != 403
    with browser(ListenConfig(api_prefix=prefix, cors_origins=("*", PAGE))) as http:
        assert http.post(path, json=body, headers=ORIGIN).status_code == free
    with browser(ListenConfig(api_prefix=prefix, api_keys=frozenset({"k"}))) as http:
        assert http.post(path, json=body, headers={**ORIGIN, "X-Api-Key": "k"}).status_code == free
        assert http.post(path, json=body, headers=ORIGIN).status_code == 401


def test_errors_can_be_read_by_pages_too() -> None:
    with browser(ListenConfig(api_keys=frozenset({"secret"}))) as http:
        assert http.get("/nothing", headers=ORIGIN).headers["access-control-allow-origin"] == "*"
        keyed = {**ORIGIN, "X-Api-Key": "secret"}
        for reply in (http.get("/nothing", headers=keyed), http.post("/completion", json={}, headers=keyed)):
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "x-request-id" in reply.headers


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://a", "a", True), ("http://a", "a:80", True), ("http://A:8080", "a:8080", True),
        ("http://[::1]:1", "[::1]:1", True),
        ("https://a", "a", True), ("https://a", "a:443", True), ("http://a", "a:81", False), ("http://a", "b", False),
        ("null", "null", False), ("ftp://a", "a", False), ("http://", "", False), ("a", "a", False),
        ("http://a/", "a", False),
        ("http://u@a", "a", False), ("http://a:80:80", "a", False),
    ],
)  # fmt: skip
def test_a_page_of_the_server_itself(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same


LOCAL = (
    "localhost",
    "localhost:99",
    "127.0.0.1",
    "127.1.2.3:99",
    "[::1]",
    "[::1]:99",
    "LOCALHOST.",
    "a.localhost:1",
    "",
)
FOREIGN = (
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.5",
    "x",
    "[::2]",
)


PROXY = "proxy.example", "10.0.0.5"


async def status(port: int, host: str, target: str = "/health") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    if b" 403 " in reply:
        assert b"--allowed-hosts" in reply
    return int(reply.split()[1])


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        ((), LOCAL, FOREIGN),
        (PROXY, (*LOCAL, *PROXY, "Proxy.Example:443", "10.0.0.5:1"), ("evil.example", "10.0.0.6")),
        (("*",), (*LOCAL, *FOREIGN), ()),
    ],
)  # fmt: skip
def test_names_that_a_loopback_listener_is_called_by(
    allowed: tuple[str, ...], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(allowed_hosts=allowed)) as server:
            for host in good:
                assert await status(server.port, host) == 200, host
            for host in bad:
                assert await status(server.port, host) == 403, host

    asyncio.run(scene())


@pytest.mark.parametrize(("allowed", "evil"), [((), 200), (("proxy.example",), 403)])
def test_names_that_any_other_listener_is_called_by(allowed: tuple[str, ...], evil: int) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), ListenConfig(allowed_hosts=allowed), host="0.0.0.0") as server:
            for host in ("proxy.example", "localhost", "10.0.0.5:99", "[::2]", "127.0.0.1"):
                assert await status(server.port, host) == 200
            assert await status(server.port, "evil.example") == evil

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("http://localhost/health", 200), ("HTTP://127.0.0.1:99/health?x=/y", 200), ("https://localhost/health", 200),
        ("http://localhost", 200), ("http://localhost?/health", 200), ("http://localhost/he%61lth", 200),
        ("http://evil.example/health", 403), ("http://localhost/nothing", 404), ("ftp://localhost/health", 404),
        ("http:///health", 404),
    ],
)  # fmt: skip
def test_an_absolute_target(target: str, answer: int) -> None:
    """Its host counts, not the header's."""

    async def scene() -> None:
        async with running(FakeTextClient()) as server:
            assert await status(server.port, "localhost", target) == answer
            if answer != 404:
                fake = "evil.example" if answer == 200 else "localhost"
                assert await status(server.port, fake, target) == answer

    asyncio.run(scene())
