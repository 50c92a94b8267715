"""TLS on the listening sockets, with a certificate of the test's own."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from llamabox.errors import OptionsError
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.doors import open_doors
from llamabox.server.listening.tls import tls_context
from tests.server.fake_client import FakeTextClient, delta, saying, started
from tests.server.harness import WITHIN, Running, events, running

CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def certify(folder: Path, password: bytes | None = None) -> ListenConfig:
    """A certificate for 127.0.0.1, signed by its own key; with a password that key is encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llamabox test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key_path, certificate_path = folder / "key.pem", folder / "certificate.pem"
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return ListenConfig(ssl_key_file=str(key_path), ssl_cert_file=str(certificate_path))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ListenConfig:
    return certify(tmp_path_factory.mktemp("tls"))


def trusting(config: ListenConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=config.ssl_cert_file)


def connect(server: Running, config: ListenConfig, *, http2: bool) -> httpx.AsyncClient:
    url = f"https://127.0.0.1:{server.port}"
    return httpx.AsyncClient(base_url=url, verify=trusting(config), http2=http2, http1=not http2, timeout=WITHIN)


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_a_client_that_checks_the_certificate_is_served(config: ListenConfig, http2: bool, version: str) -> None:
    async def scene() -> None:
        client = FakeTextClient(saying("one", "two"))
        async with running(client, config) as server, connect(server, config, http2=http2) as http:
            reply = await http.get("/health")
            assert (reply.status_code, reply.http_version) == (200, version)
            streamed, other = await asyncio.gather(http.post("/v1/chat/completions", json=CHAT), http.get("/v1/models"))
            assert events(streamed.text)[-1] == "[DONE]"
            assert other.status_code == 200

    asyncio.run(scene())


def test_a_plain_client_is_not_served_and_does_no_harm(config: ListenConfig) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), config) as server, connect(server, config, http2=True) as http:
            with pytest.raises(httpx.TransportError):
                await server.http.get("/health")
            assert (await http.get("/health")).status_code == 200

    asyncio.run(scene())


def test_a_client_without_a_handshake_does_not_hold_up_the_end(config: ListenConfig) -> None:
    async def scene() -> None:
        async with running(FakeTextClient(), config) as server:
            _, writer = await server.connect()
        writer.close()

    asyncio.run(asyncio.wait_for(scene(), WITHIN))


def test_a_client_that_stops_reading_is_dropped(config: ListenConfig) -> None:
    async def scene() -> None:
        client = FakeTextClient()
        async with running(client, replace(config, stall_timeout=0.2)) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(config))
            body = b'{"prompt": "a", "stream": true}'
            head = b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            generation = await client.submitted()
            generation.push(started(generation.submit))
            for n in range(1, 33):
                generation.push(delta(generation.submit, "x" * (1 << 20), n))
            await generation.aborted.wait()
            await server.app.state.site.lifecycle.drained()
            writer.transport.abort()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"ssl_key_file": None}, "--ssl-cert-file needs --ssl-key-file as well"),
        ({"ssl_cert_file": None}, "--ssl-key-file needs --ssl-cert-file as well"),
        ({"ssl_key_file": "missing.pem"}, "--ssl-key-file missing.pem: cannot read the file: No such file"),
        ({"ssl_cert_file": "/"}, "--ssl-cert-file /: cannot read the file: Is a directory"),
        ({"ssl_cert_file": "a\0b"}, "cannot read the file: embedded null byte"),
        ({"ssl_cert_file": __file__}, "cannot be used"),
        ({"ssl_key_file": __file__}, "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_starts(
    config: ListenConfig, change: dict[str, str | None], part: str
) -> None:
    with pytest.raises(OptionsError) as refused:
        open_doors(replace(config, **change))  # type: ignore[arg-type]
    assert part in refused.value.message


def test_a_key_that_is_not_the_certificates(config: ListenConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="the certificate made for it"):
        tls_context(replace(config, ssl_key_file=certify(tmp_path).ssl_key_file))


@pytest.mark.parametrize("field", ["ssl_key_file", "ssl_cert_file"])
def test_a_byte_order_mark_before_it_does_no_harm(config: ListenConfig, field: str, tmp_path: Path) -> None:
    marked = tmp_path / "marked.pem"
    marked.write_bytes(b"\xef\xbb\xbf" + Path(getattr(config, field)).read_bytes())
    assert tls_context(replace(config, **{field: str(marked)})) is not None


def test_an_encrypted_key_is_refused_and_not_asked_about(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="an unencrypted key"):
        tls_context(certify(tmp_path, b"secret"))


def test_the_command_ends_with_1(config: ListenConfig, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"never read")
    words = ["-m", str(model), "--port", "1", "--ssl-cert-file", config.ssl_cert_file or ""]
    ended = subprocess.run([sys.executable, "-m", "llamabox", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "error: --ssl-cert-file needs --ssl-key-file as well: TLS takes a certificate and its key\n"
