"""Files of the media folder, and nothing outside of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamabox.media.decoding.link import Unreadable
from llamabox.media.fetching.folder import MISSING, MediaFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with pictures, beside one with a secret."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    found = tmp_path / "media"
    (found / "sub").mkdir(parents=True)
    (found / "a.png").write_bytes(b"pixels")
    (found / "sub" / "ä b%.png").write_bytes(b"others")
    return found


def test_files_below_it_are_read(root: Path) -> None:
    folder = MediaFolder(str(root))
    for url in ("file://a.png", "FILE://sub/../a.png", f"file://{root}/a.png", "file://./a.png"):
        assert folder.read(url, 100) == b"pixels"
    assert folder.read("file://sub/%C3%A4%20b%25.png", 100) == b"others"


def test_links_may_lead_about_in_it(root: Path) -> None:
    (root / "link.png").symlink_to("sub/../a.png")
    (root / "folder").symlink_to("sub")
    folder = MediaFolder(str(root))
    assert folder.read("file://link.png", 100) == b"pixels"
    assert folder.read("file://folder/%C3%A4%20b%25.png", 100) == b"others"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../secret/key",
            "sub/../../secret/key",
            "%2e%2e/secret/key",
            "..%2fsecret%2fkey",
            "link",
            "links/key",
            "pipe",
        ),
        *("missing", "", ".", "sub", "..", "a.png%00", "%00", "socket", "/etc/passwd", "/dev/zero", "loop"),
        *("localhost/a.png", "~/a.png", "..\\secret\\key", "%ff%fe", "a" * 5000),
    ],
)
def test_nothing_else_is(root: Path, name: str) -> None:
    """Whether it is there or not, the answer is the same."""
    (root / "link").symlink_to("../secret/key")
    (root / "links").symlink_to(root.parent / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    if name == "socket":
        os.mknod(root / "socket", 0o140600)
    with pytest.raises(Unreadable) as caught:
        MediaFolder(str(root)).read(f"file://{name}", 100)
    assert str(caught.value) == MISSING


def test_a_place_that_becomes_a_link_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody swaps a folder for a link between the check and the opening."""
    resolve = os.path.realpath

    def swapped(path: str, *, strict: bool = False) -> str:
        found = resolve(path, strict=strict)
        if strict:
            (root / "sub").rename(root / "was")
            (root / "sub").symlink_to(root.parent / "secret")
        return found

    (root / "sub" / "key").write_bytes(b"picture")
    folder = MediaFolder(str(root))
    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(Unreadable):
        folder.read("file://sub/key", 100)


def test_a_large_file_is_refused(root: Path) -> None:
    (root / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Unreadable, match="names a file of more than 1 MiB"):
        MediaFolder(str(root)).read("file://large", 1 << 20)
