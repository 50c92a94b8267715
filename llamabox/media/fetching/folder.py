"""Files of `file://` URLs: regular ones below one folder, and nothing else."""

from __future__ import annotations

import os
import stat
from urllib.parse import unquote_to_bytes

from llamabox.media.decoding.link import Unreadable

SCHEME = "file://"

MISSING = "names no file below --media-path that can be read"
"""One sentence for all reasons: which files there are outside of the folder is nobody's business."""


class MediaFolder:
    """The folder that `--media-path` names. Its calls block."""

    def __init__(self, path: str) -> None:
        self._root = os.path.realpath(path)

    def read(self, url: str, limit: int) -> bytes:
        """The file that a URL names, absolute or from the folder on. Raises Unreadable.

        A link may lead to another file below the folder. What is opened is the place that was checked: should a part of
        it become a link in between, it is refused.
        """
        named = os.fsdecode(unquote_to_bytes(url[len(SCHEME) :]))
        try:
            real = os.path.realpath(os.path.join(self._root, named), strict=True)
            parts = os.path.relpath(real, self._root).split(os.sep)
            if os.pardir in parts or parts == [os.curdir]:
                raise Unreadable(MISSING)
            return self._read(parts, limit)
        except (OSError, ValueError) as error:  # ValueError: there is a NUL in it
            raise Unreadable(MISSING) from error

    def _read(self, parts: list[str], limit: int) -> bytes:
        *folders, name = parts
        here = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = inner
            # To open a device can do something, and to open a pipe can last: looked at before, and once more behind.
            if not stat.S_ISREG(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                raise Unreadable(MISSING)
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        finally:
            os.close(here)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable(MISSING)
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Unreadable(f"names a file of more than {limit >> 20} MiB")
        return data
