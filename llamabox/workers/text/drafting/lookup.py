"""The files of lookup: read at the start, written at the end and before counts are thinned out."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llamabox.engine.drafting.lookup.cache_file import DamagedCache, decode, decode_static, encode
from llamabox.engine.drafting.lookup.counts import NO_STATIC, Counts, StaticCounts
from llamabox.engine.drafting.lookup.drafter import N_DYNAMIC, N_LEFT, Entries, LookupDrafter
from llamabox.errors import OptionsError
from llamabox.wire.text_config import TextConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Lookup:
    """A LookupDrafter with its files. `close()`, idempotent, writes the dynamic counts.

    Belongs to the engine's thread; files of counts that are full are written on a thread of their own.
    """

    def __init__(self, config: TextConfig, n_vocab: int) -> None:
        """Raises OptionsError for a file that cannot be read, or not written later."""
        self._path = Path(config.lookup_cache_dynamic) if config.lookup_cache_dynamic else None
        self._writing: threading.Thread | None = None
        self._is_open = True
        dynamic = Counts(config.lookup_ngram_min)
        if self._path is not None:
            self._read_dynamic(self._path, dynamic, n_vocab)
        static = NO_STATIC
        if config.lookup_cache_static:
            static = read_static(Path(config.lookup_cache_static), n_vocab)
        learns = learns_from(config.spec_corpus, has_file=self._path is not None)
        self.drafter = LookupDrafter(dynamic, static, learns=learns, on_full=self._write_soon)

    def close(self) -> None:
        """Write what was counted, if anything was."""
        if not self._is_open:
            return
        self._is_open = False
        if self._writing is not None:
            self._writing.join()
        self.drafter.settle()
        if self._path is not None and self.drafter.has_learnt:
            self._write(self._path, list(self.drafter.dynamic.followers.items()))

    def _read_dynamic(self, path: Path, counts: Counts, n_vocab: int) -> None:
        if not path.parent.is_dir():
            raise OptionsError(f"-lcd {path}: there is no folder {path.parent}, in which it could be written")
        if path.exists():
            counts.followers = _read(path, "-lcd", lambda data: decode(data, n_vocab))
            n_read = len(counts)
            if n_read > N_DYNAMIC:
                counts.thin_out(N_LEFT)
            logger.info("dynamic lookup cache: %d n-grams of %d in %s", len(counts), n_read, path)

    def _write_soon(self, entries: Entries) -> None:
        """Write beside the streams. While a file is being written, the next one is left out: it comes at the end."""
        if self._path is None or (self._writing is not None and self._writing.is_alive()):
            return
        self._writing = threading.Thread(target=self._write, args=(self._path, entries), name="lookup cache")
        self._writing.start()

    def _write(self, path: Path, entries: Entries) -> None:
        # list() copies an n-gram's counts in one go, while the engine's thread may be adding to them.
        content = encode((gram, list(followers.items())) for gram, followers in entries)
        try:
            write_file(path, content)
        except OSError as error:
            logger.error("the dynamic lookup cache %s is not written: %s", path, error.strerror)
        else:
            logger.info("dynamic lookup cache: %d n-grams written to %s", len(entries), path)


def learns_from(corpus: str, *, has_file: bool) -> Callable[[str], bool]:
    """Whether an audience's outputs are counted for all: as --spec-corpus has it, unless a file asks for them."""
    if has_file or corpus == "all":
        return lambda audience: True
    if corpus == "off":
        return lambda audience: False
    return lambda audience: not audience


def read_static(path: Path, n_vocab: int) -> StaticCounts:
    """The 2-grams of a file. Raises OptionsError."""
    static = _read(path, "-lcs", lambda data: decode_static(data, n_vocab))
    if not len(static):
        raise OptionsError(f"-lcs {path}: it has no 2-grams, which are what a static cache is of")
    logger.info("static lookup cache: %d 2-grams in %s", len(static), path)
    return static


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write the file whole or not at all, for its owner alone unless `mode` says otherwise. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".lookup-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _read(path: Path, option: str, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise OptionsError(f"{option} {path} cannot be read: {error.strerror}") from error
    except DamagedCache as error:
        raise OptionsError(f"{option} {path} is no lookup cache that can be used: {error}") from error
