"""Where builds and models are kept, and that nobody else can have put them there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import build_native
from llamabox.artifacts import caches
from llamabox.artifacts.caches import Cache, NoCache

ROOT = Path(build_native.__file__).parent


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("tmp")
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder / f"llamabox-{os.getuid()}"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077], ids=oct)
def test_the_usual_folder_is_made_for_its_user_alone_and_used_again(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for environ, base in (({"HOME": str(tmp_path)}, ".cache"), ({"XDG_CACHE_HOME": str(tmp_path / "x")}, "x")):
            folder = tmp_path / base / "llamabox" / "models"
            assert caches.cache("models", environ) == caches.cache("models", environ) == Cache(folder)
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_without_a_home_it_is_below_the_temporary_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(caches.pwd, "getpwuid", nobody)
    cache = caches.cache("models", {})
    assert cache.path == temporary / "models"
    assert cache.note == (
        f"there is no home folder: the cache is {cache.path} instead. XDG_CACHE_HOME names another folder"
    )


@pytest.mark.parametrize("environ", [{"HOME": "/proc/nothing"}, {"XDG_CACHE_HOME": "/proc/version"}], ids=str)
def test_where_the_home_cannot_be_written_to_neither(temporary: Path, environ: Mapping[str, str]) -> None:
    cache = caches.cache("models", environ)
    assert cache.path == temporary / "models"
    assert "cannot be written to" in cache.note


def test_no_folder_at_all_is_a_sentence(tmp_path: Path, temporary: Path) -> None:
    temporary.write_text("in the way")
    with pytest.raises(NoCache, match=r"no cache can be kept: .*, and .*XDG_CACHE_HOME to a folder of your own"):
        caches.cache("models", {"HOME": "/proc/nothing"})


@pytest.mark.parametrize("shared", ["", "a", "a/llamabox", "a/llamabox/models"])
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_what_others_may_have_written_is_not_trusted(temporary: Path, tmp_path: Path, shared: str, mode: int) -> None:
    folder = tmp_path / "a" / "llamabox" / "models"
    folder.mkdir(parents=True)
    assert caches.why_not(folder) is None
    (tmp_path / shared).chmod(mode)
    os.chown(tmp_path / shared, -1, 12345)
    assert caches.why_not(folder) == f"{tmp_path / shared} can be written to by others"
    assert caches.cache("models", {"XDG_CACHE_HOME": str(tmp_path / "a")}).path != folder


def test_what_belongs_to_another_is_not_trusted(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", 12345, -1)
    assert caches.why_not(tmp_path / "a" / "llamabox") == f"{tmp_path / 'a'} belongs to another user (uid 12345)"
    temporary.mkdir()
    os.chown(temporary, 12345, -1)
    with pytest.raises(NoCache, match=r"another user.*another user"):
        caches.cache("models", {"XDG_CACHE_HOME": str(tmp_path / "a")})


def test_a_link_is_as_good_as_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home" / ".cache").symlink_to(tmp_path / "scratch")
    assert caches.why_not(tmp_path / "home" / ".cache" / "llamabox") is None
    (tmp_path / "scratch").chmod(0o777)
    assert "can be written to by others" in str(caches.why_not(tmp_path / "home" / ".cache" / "llamabox"))


def test_a_group_of_the_user_alone_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it many systems have a umask of 002."""
    user = caches.pwd.struct_passwd(("me", "x", 1000, 12345, "", "/", "/"))
    monkeypatch.setattr(caches.pwd, "getpwuid", lambda uid: user)
    tmp_path.chmod(0o775)
    os.chown(tmp_path, -1, 12345)
    for name, members, is_trusted in (
        ("me", [], True),
        ("me", ["me"], True),
        ("me", ["you"], False),
        ("us", [], False),
    ):
        group = caches.grp.struct_group((name, "x", 12345, members))
        monkeypatch.setattr(caches.grp, "getgrgid", lambda gid, group=group: group)
        assert (caches.why_not(tmp_path) is None) == is_trusted


def test_a_build_without_a_home_says_once_where_it_is_kept(temporary: Path) -> None:
    program = "from native.build.cache import cache_folder; print(cache_folder()); print(cache_folder())"
    environment = {"HOME": "/proc/nothing", "TMPDIR": str(temporary.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    folder = temporary / "native"
    assert done.stdout.splitlines() == [str(folder)] * 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f": the cache is {folder} instead. XDG_CACHE_HOME names another folder\n")
