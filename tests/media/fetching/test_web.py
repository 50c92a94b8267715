"""Fetching: the file comes, and a host that is hostile reaches nothing inside and holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llamabox.errors import QueueFull, Unavailable
from llamabox.media.decoding.link import Unreadable
from llamabox.media.fetching.hosts import allowed_hosts
from llamabox.media.fetching.web import Fetcher
from tests.media.fetching.hostile_server import HostileServer, redirect, serving
from tests.media.reading import CountedRoom

LIMIT = 16 << 20


class Names:
    """A resolver whose answers are given. It forgets nothing that it was asked."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]


@contextlib.asynccontextmanager
async def fetcher(hosts: str, *, seconds: float = 30.0, tls: ssl.SSLContext | None = None, **names: list[str]) -> Any:
    made = Fetcher(allowed_hosts(hosts), resolve=Names(**names), seconds=seconds, tls=tls)
    try:
        yield made
    finally:
        made.close()


async def refused(made: Fetcher, url: str) -> str:
    room = CountedRoom()
    with pytest.raises(Unreadable) as caught:
        await made.fetch(url, room, LIMIT)
    assert room.n_bytes == 0
    return str(caught.value)


@contextlib.asynccontextmanager
async def scene(seconds: float = 30.0, **names: list[str]) -> AsyncIterator[tuple[HostileServer, Fetcher, str]]:
    """A server on loopback, a fetcher that may reach it alone, and its address. Others on loopback may not be."""
    async with serving() as server, fetcher(f"any,127.0.0.1:{server.port}", seconds=seconds, **names) as made:
        yield server, made, f"http://127.0.0.1:{server.port}"


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the server does
        runner.run(limited())


def test_a_file_comes_as_it_is() -> None:
    async def work() -> None:
        async with scene(images_example=["127.0.0.1"]) as (server, made, url):
            server.bodies["/a%20b.png?x=%C3%A4&y"] = body = bytes(range(256)) * 1000
            room = CountedRoom()
            assert await made.fetch(f"{url}/a%20b.png?x=ä&y#part", room, LIMIT) == body
            assert room.n_bytes == len(body)
            assert await made.fetch(f"HTTP://images.EXAMPLE.:{server.port}/a%20b.png?x=%C3%A4&y", room, LIMIT) == body
            head = server.heads[-1].decode()
            assert f"host: images.example:{server.port}" in head.lower()
            assert "accept-encoding: identity" in head.lower()
            assert not {"cookie:", "authorization:", "referer:"} & set(head.lower().split())

    run(work())


def test_a_body_in_chunks_and_one_that_ends_with_the_connection() -> None:
    async def work() -> None:
        async with scene() as (server, made, url):
            server.answers["/chunked"] = (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            )
            server.answers["/until-closed"] = b"HTTP/1.0 200 OK\r\n\r\nabcde"
            server.answers["/early-hints"] = (
                b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"
            )
            for path in server.answers:
                assert await made.fetch(url + path, CountedRoom(), LIMIT) == b"abcde"

    run(work())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "10.0.0.1", "169.254.169.254", "64:ff9b::7f00:1"]
)
def test_a_name_that_resolves_to_the_inside_reaches_nothing(address: str) -> None:
    async def work() -> None:
        async with serving() as server, fetcher("any", evil_example=[address]) as made:
            said = await refused(made, f"http://evil.example:{server.port}/secret")
            assert "evil.example is no address of the open internet" in said
            assert "--media-url" in said
            assert server.heads == []

    run(work())


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "[::1]", "[::]"),
        *(
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[fe80::1%25lo]",
            "127.0.0.1.",
        ),
        *("①②⑦.0.0.1", "127。0。0。1", "[::1", "", "%31%32%37.0.0.1", "127.0.0.1\t", "evil.example\\@127.0.0.1"),
    ],
)
def test_no_way_to_write_it_reaches_this_machine(host: str) -> None:
    async def work() -> None:
        async with serving() as server, fetcher("any", localhost=["127.0.0.1", "::1"]) as made:
            assert await refused(made, f"http://{host}:{server.port}/secret")
            assert server.heads == []

    run(work())


def test_a_redirect_to_the_inside_is_not_followed() -> None:
    async def work() -> None:
        async with scene(evil_example=["127.0.0.2"]) as (server, made, url), serving("127.0.0.2") as inside:
            for i, location in enumerate(
                [
                    f"http://127.0.0.2:{inside.port}/secret",
                    f"http://evil.example:{inside.port}/secret",
                    f"//127.0.0.2:{inside.port}/secret",
                    f"http://2130706434:{inside.port}/secret",
                    f"http://[::ffff:127.0.0.2]:{inside.port}/secret",
                    "file:///etc/passwd",
                    "ftp://127.0.0.2/secret",
                    f"http://user:word@127.0.0.1:{server.port}/picture",
                ]
            ):
                server.answers[f"/{i}"] = redirect(location)
                assert await refused(made, f"{url}/{i}"), location
            assert inside.heads == []

    run(work())


def test_redirects_are_followed_while_they_are_few() -> None:
    async def work() -> None:
        async with scene() as (server, made, url):
            server.bodies["/picture"] = b"pixels"
            server.answers |= {
                "/1": redirect("/2", 301),
                "/2": redirect("3", 307),
                "/3": redirect(f"{url}/picture", 308),
            }
            server.answers["/loop"] = redirect("/loop")
            assert await made.fetch(f"{url}/1", CountedRoom(), LIMIT) == b"pixels"
            assert "leads on more than 3 times" in await refused(made, f"{url}/loop")
            assert server.paths.count("/loop") == 4

    run(work())


def test_a_name_is_asked_for_once_a_connection() -> None:
    """The address that was checked is the one that is connected to, whatever the name means a moment later."""

    async def work() -> None:
        async with serving() as server, serving("127.0.0.2") as inside:
            answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]

            async def rebinding(host: str, port: int) -> list[str]:
                return answers.pop(0)

            made = Fetcher(allowed_hosts(f"any,127.0.0.1:{server.port}"), resolve=rebinding)
            server.bodies["/picture"] = b"pixels"
            url = f"http://evil.example:{server.port}/picture"
            assert await made.fetch(url, CountedRoom(), LIMIT) == b"pixels"
            assert len(answers) == 2
            await refused(made, f"http://evil.example:{inside.port}/secret")
            assert inside.heads == []
            made.close()

    run(work())


def test_only_addresses_that_may_be_reached_are_tried() -> None:
    async def work() -> None:
        async with scene(some_example=["10.0.0.1", "127.0.0.1", "::1"]) as (server, made, _):
            server.bodies["/picture"] = b"pixels"
            url = f"http://some.example:{server.port}/picture"
            assert await made.fetch(url, CountedRoom(), LIMIT) == b"pixels"

    run(work())


def test_hosts_that_are_not_named_are_not_asked_for() -> None:
    async def work() -> None:
        async with fetcher("images.example", other_example=["8.8.8.8"]) as made:
            said = await refused(made, "https://other.example/a.png")
            assert "names the host other.example:443, which --media-url does not allow" in said
            assert made._resolve.asked == []

    run(work())


@pytest.mark.parametrize("path", ["/trickle", "/silence"])
def test_who_takes_too_long_is_left(path: str) -> None:
    async def work() -> None:
        async with scene(seconds=0.5) as (_, made, url):
            assert "did not come within 0.5 seconds" in await refused(made, url + path)

    run(work())


def test_a_body_without_an_end_is_left_at_the_bound() -> None:
    async def work() -> None:
        async with scene() as (server, made, url):
            room = CountedRoom()
            with pytest.raises(Unreadable, match="is a file of more than 16 MiB"):
                await made.fetch(f"{url}/endless", room, LIMIT)
            assert (room.n_bytes, room.most <= LIMIT) == (0, True)
            server.answers["/declared"] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
            assert "more than 16 MiB" in await refused(made, f"{url}/declared")
            while not server.n_ended_early:
                await asyncio.sleep(0.01)

    run(work())


def test_bytes_count_as_they_come() -> None:
    class FullRoom(CountedRoom):
        def grow(self, n_bytes: int) -> None:
            if self.n_bytes + n_bytes > 100_000:
                raise Unavailable("full", retry_after=2)
            super().grow(n_bytes)

    async def work() -> None:
        async with scene() as (_, made, url):
            room = FullRoom()
            with pytest.raises(Unavailable):
                await made.fetch(f"{url}/endless", room, LIMIT)
            assert room.n_bytes == 0

    run(work())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx", "answers 206"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "packs it"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", "breaks off or speaks no HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000, "speaks no HTTP"),
        (b"", "breaks off"),
    ],
)
def test_other_answers_are_refused(answer: bytes, said: str) -> None:
    async def work() -> None:
        async with scene() as (server, made, url):
            server.answers["/it"] = answer
            assert said in await refused(made, f"{url}/it")

    run(work())


def test_urls_that_are_none() -> None:
    async def work() -> None:
        async with fetcher("any") as made:
            for url in (
                "http://",
                "http:///a",
                "https://a b/",
                "http://a\r\nHost: b/",
                "http://a:99999/",
                "gopher://a/",
            ):
                assert await refused(made, url)
            assert "more than 4096 characters" in await refused(made, "http://a.example/" + "x" * 5000)
            assert "is not known" in await refused(made, "http://nowhere.example/")

    run(work())


def test_a_fetch_that_is_cancelled_leaves_nothing() -> None:
    async def work() -> None:
        async with scene() as (server, made, url):
            room = CountedRoom()
            fetching = asyncio.create_task(made.fetch(f"{url}/trickle", room, LIMIT))
            while not room.n_bytes:
                await asyncio.sleep(0.01)
            fetching.cancel()
            await asyncio.wait([fetching])
            assert (fetching.cancelled(), room.n_bytes) == (True, 0)
            while not server.n_ended_early:
                await asyncio.sleep(0.01)

    run(work())


def test_fetches_of_all_requests_are_bounded_and_wait_their_turn() -> None:
    async def work() -> None:
        async with serving() as server:
            url = f"http://127.0.0.1:{server.port}"
            server.bodies["/cat.png"] = b"cat"
            made = Fetcher(allowed_hosts(f"127.0.0.1:{server.port}"), n_at_once=2, max_waiting=3)
            slow = [asyncio.create_task(made.fetch(f"{url}/silence", CountedRoom(), LIMIT)) for _ in range(2)]
            while len(server.heads) < 2:
                await asyncio.sleep(0.01)
            quick = [asyncio.create_task(made.fetch(f"{url}/cat.png", CountedRoom(), LIMIT)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="3 files wait to be fetched already") as refusal:
                await made.fetch(f"{url}/cat.png", CountedRoom(), LIMIT)
            assert refusal.value.retry_after == 10
            assert len(server.heads) == 2, "a fetch that waits has begun"
            quick[0].cancel()  # its client went away
            slow[0].cancel()
            assert await asyncio.gather(*quick[1:]) == [b"cat", b"cat"]
            assert len(server.heads) == 4
            slow[1].cancel()
            assert await made.fetch(f"{url}/cat.png", CountedRoom(), LIMIT) == b"cat"
            made.close()

    run(work())


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server of these names, and for a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


def test_https_is_verified_by_the_name_in_the_url(tmp_path: Path) -> None:
    async def work() -> None:
        tls, trusting = certificate(tmp_path, "images.example")
        names = {"images_example": ["127.0.0.1"], "other_example": ["127.0.0.1"]}
        async with serving(tls=tls) as server:
            server.bodies["/picture"] = b"pixels"
            server.answers["/down"] = redirect(f"http://images.example:{server.port}/picture")
            hosts, url = f"any,127.0.0.1:{server.port}", f"https://images.example:{server.port}"
            async with fetcher(hosts, tls=trusting, **names) as made:
                assert await made.fetch(f"{url}/picture", CountedRoom(), LIMIT) == b"pixels"
                assert "leads from https on to http" in await refused(made, f"{url}/down")
                assert "takes no connection" in await refused(made, f"https://other.example:{server.port}/picture")
            async with fetcher(hosts, **names) as made:
                assert "takes no connection" in await refused(made, f"{url}/picture")

    run(work())


def test_the_system_s_resolver_is_asked_on_threads_of_the_fetcher_s_own() -> None:
    async def work() -> None:
        made = Fetcher(allowed_hosts("localhost"))
        assert "localhost is no address of the open internet" in await refused(made, "http://localhost/")
        made.close()

    run(work())
