"""Decoded media that are kept: a chat sends its pictures again with every question, and decoding one takes long."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from llamabox.engine.request import Picture, Sound
from llamabox.media.decoding.link import Wanted
from llamabox.media.errand import File

Key = tuple[bytes, Wanted]
"""The digest of a file, and what was made of it."""


class KeptMedia:
    """The most recently used, up to `budget` bytes together. Belongs to one thread."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._media: OrderedDict[Key, Picture | Sound] = OrderedDict()
        self.n_bytes = 0

    def find(self, key: Key) -> Picture | Sound | None:
        found = self._media.get(key)
        if found is not None:
            self._media.move_to_end(key)
        return found

    def keep(self, key: Key, media: Picture | Sound) -> None:
        """Keep it, unless it alone is beyond the budget."""
        if key in self._media or media.n_bytes > self._budget:
            return
        self._media[key] = media
        self.n_bytes += media.n_bytes
        while self.n_bytes > self._budget:
            _, oldest = self._media.popitem(last=False)
            self.n_bytes -= oldest.n_bytes


def key_of(file: File, wanted: Wanted) -> Key:
    """Takes half a millisecond a megabyte where processors have instructions for it. A file and the text that it is
    written in are two.
    """
    is_text = isinstance(file, str)
    digest = hashlib.sha256(b"text" if is_text else b"file")
    digest.update(file.encode("utf-8", "replace") if isinstance(file, str) else file)
    return digest.digest(), wanted
