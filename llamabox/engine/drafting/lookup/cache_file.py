"""The format of llama.cpp's lookup caches, which its tools read and write as well.

Entries until the file ends, each 4 × int32 the tokens of an n-gram, -1 behind the last | int32 k | k × (int32 token,
int32 count). Little endian.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llamabox.engine.drafting.lookup.counts import BITS, LOW, N_MAX, Gram, StaticCounts

HEAD = N_MAX + 1
LARGEST = 2**31 - 1


class DamagedCache(ValueError):
    """A file that is no lookup cache, or not one for this vocabulary."""


def encode(entries: Iterable[tuple[Gram, Iterable[tuple[int, int]]]]) -> bytes:
    """The file of n-grams and their followers, each a token and its count."""
    words = array("i")
    for gram, followers in entries:
        pairs = [word for token, count in followers for word in (token, min(count, LARGEST))]
        words.extend([(gram >> (BITS * i) & LOW) - 1 for i in range(N_MAX)])
        words.append(len(pairs) // 2)
        words.extend(pairs)
    return _little(words).tobytes()


def decode(data: bytes, n_vocab: int) -> dict[Gram, dict[int, int]]:
    """All n-grams of a file and their followers. Of two entries for one n-gram the first counts.

    Raises DamagedCache.
    """
    words, starts = _parsed(data, n_vocab)
    found: dict[Gram, dict[int, int]] = {}
    grams = _grams(words, starts)
    flat = words.tolist()
    for start, gram in zip(starts.tolist(), grams, strict=True):
        stop = start + HEAD + 2 * flat[start + N_MAX]
        found.setdefault(gram, dict(zip(flat[start + HEAD : stop : 2], flat[start + HEAD + 1 : stop : 2], strict=True)))
    return found


def decode_static(data: bytes, n_vocab: int) -> StaticCounts:
    """The 2-grams of a file, which are all that a static cache is asked for. Raises DamagedCache."""
    words, starts = _parsed(data, n_vocab)
    is_pair = (words[starts + 1] >= 0) & (words[starts + 2] < 0)
    starts = starts[is_pair]
    keys = (words[starts].astype(np.int64) + 1) | ((words[starts + 1].astype(np.int64) + 1) << BITS)
    order = np.argsort(keys, kind="stable")
    starts, keys = starts[order], keys[order]
    sizes = 2 * words[starts + N_MAX].astype(np.int64)
    stops = np.concatenate(([0], np.cumsum(sizes)))
    places = np.repeat(starts + HEAD - stops[:-1], sizes) + np.arange(stops[-1])
    return StaticCounts(
        array("q", keys.tobytes()), array("q", stops.tobytes()), array("i", words[places].astype(np.int32).tobytes())
    )


def _parsed(data: bytes, n_vocab: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The file's words, and where its entries begin. Raises DamagedCache where anything is not as it must be."""
    if len(data) % 4:
        raise DamagedCache(f"it has {len(data)} bytes, which is no multiple of 4")
    words = np.frombuffer(data, dtype="<i4").astype(np.int32)
    starts = np.array(_starts(words), dtype=np.int64)
    grams = words[starts[:, None] + np.arange(N_MAX)]
    gaps = (grams[:, 1:] >= 0) & (grams[:, :-1] < 0)
    _refuse(starts, (grams[:, 0] < 0) | (grams < -1).any(axis=1) | gaps.any(axis=1), "has no n-gram")
    is_head = np.zeros(len(words), dtype=bool)
    is_head[(starts[:, None] + np.arange(HEAD)).ravel()] = True
    pairs = words[~is_head].reshape(-1, 2)
    owner = np.repeat(starts, words[starts + N_MAX])
    _refuse(owner, (pairs[:, 0] < 0) | (pairs[:, 1] <= 0), "has a token or a count that none can be")
    largest = max(int(grams.max(initial=-1)), int(pairs[:, 0].max(initial=-1)))
    if largest >= n_vocab:
        raise DamagedCache(f"it is of another model: it has token {largest}, but this one has {n_vocab} tokens")
    return words, starts


def _starts(words: NDArray[np.int32]) -> list[int]:
    found = []
    sizes = array("i", words.tobytes())  # whose items cost less than those of numpy's
    start, end = 0, len(sizes)
    while start < end:
        n_followers = sizes[start + N_MAX] if start + N_MAX < end else 0
        if start + N_MAX < end and n_followers <= 0:
            raise DamagedCache(f"the entry at byte {4 * start} has {n_followers} tokens that follow")
        stop = start + HEAD + 2 * n_followers
        if stop > end:
            raise DamagedCache(f"it ends amid the entry at byte {4 * start}")
        found.append(start)
        start = stop
    return found


def _refuse(starts: NDArray[np.int64], is_wrong: NDArray[np.bool_], why: str) -> None:
    if is_wrong.any():
        raise DamagedCache(f"the entry at byte {4 * int(starts[is_wrong.argmax()])} {why}")


def _grams(words: NDArray[np.int32], starts: NDArray[np.int64]) -> list[Gram]:
    fields = (words[starts[:, None] + np.arange(N_MAX)].astype(np.int64) + 1).tolist()
    return [a | b << BITS | c << 2 * BITS | d << 3 * BITS for a, b, c, d in fields]


def _little(words: array[int]) -> array[int]:
    if sys.byteorder == "big":
        words.byteswap()
    return words
