"""Recordings: from a file to samples. libsndfile decodes, libsoxr resamples; here are the bounds, and one channel."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from llamabox.media.decoding.link import MAX_SECONDS, Unreadable, Wanted

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Samples a second. No recording has others."""

MAX_CHANNELS = 64

BLOCK = 1 << 18
"""Samples of all channels that are decoded at a time."""

UNKNOWN = 1 << 62
"""As many frames and more mean that the file does not say how many it has."""

Samples = NDArray[np.float32]


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # it has no annotations of its own
    """A file that is read from its beginning to its end. Else soundfile seeks to where it is, after each block.

    libsndfile cannot do that at the end of a FLAC file whose header leaves its length open.
    """

    def seekable(self) -> bool:
        return False


def decode(data: bytes, name: str, wanted: Wanted) -> bytes:
    """The samples of a file of the format `name`: mono, float32 within [-1, 1], at the rate that is wanted.

    Raises Unreadable.
    """
    too_long = f"must last at most {MAX_SECONDS // 60} minutes"
    try:
        with _Stream(BytesIO(data)) as file:
            rate, n_channels = file.samplerate, file.channels
            if not (LOWEST_RATE <= rate <= HIGHEST_RATE and 1 <= n_channels <= MAX_CHANNELS):
                raise Unreadable(
                    f"has {rate} samples a second in {n_channels} channels; what is read has {LOWEST_RATE} to "
                    f"{HIGHEST_RATE} in at most {MAX_CHANNELS}"
                )
            if UNKNOWN > file.frames > MAX_SECONDS * rate:
                raise Unreadable(f"{too_long}, not {file.frames // rate // 60}")
            pieces = _mono_pieces(file, rate, wanted.rate, too_long)
    except soundfile.SoundFileError as error:
        raise Unreadable(f"is a truncated or damaged {name} file") from error
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    if not samples.size:
        raise Unreadable("holds no sound")
    return samples.clip(-1.0, 1.0, out=samples).astype("<f4", copy=False).tobytes()


def _mono_pieces(file: _Stream, rate: int, wanted_rate: int, too_long: str) -> list[Samples]:
    """All samples, one channel, at the rate that is wanted. Raises Unreadable beyond the bound: a header may lie."""
    resample = None if rate == wanted_rate else soxr.ResampleStream(rate, wanted_rate, 1, dtype="float32")
    block = np.empty((max(1, BLOCK // file.channels), file.channels), np.float32)
    pieces: list[Samples] = []
    n_frames = 0
    while True:
        frames = file.read(out=block)
        n_frames += len(frames)
        if n_frames > MAX_SECONDS * rate:
            raise Unreadable(too_long)
        # The mean of all channels; files in floating point may hold what is no number.
        mono = np.nan_to_num(frames.mean(axis=1, dtype=np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
        is_last = not len(frames)
        pieces.append(mono if resample is None else resample.resample_chunk(mono, last=is_last))
        if is_last:
            return pieces
