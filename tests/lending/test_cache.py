"""The tensors that are kept for clients: whole ones only, and no more than fit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from llamabox.errors import OptionsError
from llamabox.lending.cache import ClientFolder, TensorCache
from tests.lending.protocol import Tensor, fnv
from tests.lending.server_process import RpcServer

Lend = Callable[..., RpcServer]


def name(data: bytes) -> str:
    return f"{fnv(data):016x}"


def hashed(path: str) -> str:
    return name(Path(path).read_bytes())


def written(folder: ClientFolder, data: bytes, as_name: str | None = None) -> str:
    """As ggml does it."""
    (folder.path / (as_name or name(data))).write_bytes(data)
    return as_name or name(data)


@pytest.fixture
def cache(tmp_path: Path) -> TensorCache:
    made = TensorCache(tmp_path / "cache", 1000)
    made.prepare()
    return made


def kept(cache: TensorCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if not path.name.startswith(".")}


def test_what_one_client_brought_the_next_one_finds(cache: TensorCache) -> None:
    first = cache.open()
    brought = written(first, b"tensor")
    assert first.keep(hashed) == 1
    assert first.keep(hashed) == 0
    first.remove()
    second = cache.open()
    assert (second.path / brought).read_bytes() == b"tensor"
    second.remove()
    assert kept(cache) == {brought}


def test_part_of_a_tensor_is_never_kept(cache: TensorCache) -> None:
    folder = cache.open()
    whole = written(folder, b"half of it", as_name=name(b"half of it and the rest"))
    assert folder.keep(hashed) == 0
    assert kept(cache) == set()
    written(folder, b"half of it and the rest")
    assert folder.keep(hashed) == 1
    assert kept(cache) == {whole}


def test_what_was_not_used_for_longest_goes(cache: TensorCache) -> None:
    folder = cache.open()
    names = [written(folder, bytes([i]) * 300) for i in range(3)]
    folder.keep(hashed)
    assert kept(cache) == set(names)
    for at, each in enumerate(names):
        os.utime(cache.folder / each, (at, at))
    os.utime(cache.folder / names[0], (10, 0))
    names.append(written(folder, b"x" * 300))
    folder.keep(hashed)
    assert kept(cache) == {names[0], names[2], names[3]}


def test_a_read_counts_as_a_use(cache: TensorCache) -> None:
    folder = cache.open()
    old, other = written(folder, b"a" * 400), written(folder, b"b" * 400)
    folder.keep(hashed)
    folder.remove()
    for each in (old, other):
        os.utime(cache.folder / each, (1, 1))
    os.utime(cache.folder / other, (5, 2))
    folder = cache.open()
    (folder.path / old).read_bytes()
    if (folder.path / old).stat().st_atime < 5:
        os.utime(folder.path / old)  # a file system that notes no reads
    written(folder, b"c" * 400)
    folder.keep(hashed)
    assert old in kept(cache)
    assert other not in kept(cache)


def test_what_dead_clients_left_is_removed(cache: TensorCache) -> None:
    left = cache.open().path
    cache.clear_after(os.getpid())
    assert not left.exists()
    cache.open()
    cache.prepare()
    assert list(cache.folder.iterdir()) == []


def test_other_files_in_the_folder_stay(cache: TensorCache) -> None:
    (cache.folder / "note.txt").write_text("x" * 5000)
    cache.prepare()
    assert (cache.folder / "note.txt").exists()


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionsError, match=r"--rpc-server-cache .*file"):
        TensorCache(tmp_path / "file", 1).prepare()


def known(server: RpcServer, value: int, n_bytes: int) -> bytes | None:
    """The tensor of that hash, as a new client gets it without sending it; None where the server has none."""
    with server.client() as client:
        buffer, _ = client.alloc(n_bytes)
        tensor = Tensor(1, buffer, client.base(buffer), n_bytes // 4)
        return client.get(tensor, n_bytes) if client.set_hash(tensor, value) else None


def send(server: RpcServer, data: bytes) -> None:
    with server.client() as client:
        buffer, _ = client.alloc(len(data))
        tensor = Tensor(1, buffer, client.base(buffer), len(data) // 4)
        client.set(tensor, data, cache=True)
        assert client.get(tensor, 4) == data[:4]
    server.wait_idle()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """A file there is computed with, and its name is no proof against somebody who means harm."""
    cache = TensorCache(tmp_path / "cache", 1000)
    cache.prepare()
    cache.folder.chmod(0o777)
    with pytest.raises(OptionsError, match=r"--rpc-server-cache .*cache can be written to by others"):
        cache.prepare()


def test_a_tensor_is_sent_once(lend: Lend, tmp_path: Path) -> None:
    folder = tmp_path / "tensors"
    data = os.urandom(64 << 10)
    server = lend("--rpc-server-cache", str(folder))
    assert known(server, fnv(data), len(data)) is None
    send(server, data)
    assert [path.name for path in folder.iterdir()] == [name(data)]
    assert known(server, fnv(data), len(data)) == data
    assert server.stop() == 0
    assert known(lend("--rpc-server-cache", str(folder)), fnv(data), len(data)) == data


def test_the_folder_does_not_outgrow_its_size(lend: Lend, tmp_path: Path) -> None:
    server = lend("--rpc-server-cache", str(tmp_path / "tensors"), "--rpc-server-cache-size", "1")
    samples = [bytes([i]) * (400 << 10) for i in range(4)]
    for data in samples:
        send(server, data)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "tensors").iterdir()}
    assert set(sizes) == {name(data) for data in samples[2:]}


def test_a_process_that_is_killed_leaves_no_folder(lend: Lend, tmp_path: Path) -> None:
    server = lend("--rpc-server-cache", str(tmp_path / "tensors"))
    with server.client() as client:
        pid = server.newest_child()
        assert [path.name for path in (tmp_path / "tensors").iterdir()] == [f".client-{pid}"]
        os.kill(pid, signal.SIGKILL)
        assert client.is_closed()
    server.wait_idle()
    assert list((tmp_path / "tensors").iterdir()) == []


def test_a_client_that_is_killed_while_it_sends_leaves_nothing_half_done(lend: Lend, tmp_path: Path) -> None:
    server = lend("--rpc-server-cache", str(tmp_path / "tensors"))
    data = os.urandom(64 << 10)
    with server.client() as client:
        buffer, _ = client.alloc(len(data))
        tensor = Tensor(1, buffer, client.base(buffer), len(data) // 4)
        client.send(client.set_message(tensor, data, cache=True)[: len(data) // 2])
    server.wait_idle()
    assert list((tmp_path / "tensors").iterdir()) == []
