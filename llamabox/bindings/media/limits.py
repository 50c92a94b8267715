"""What a projector is never given: libmtmd asserts on it, which ends the process, or allocates by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.media.chunk import PictureData, SoundData
from llamabox.errors import InvalidRequest

MAX_PIXELS = 1 << 26

MAX_RATIO = 200
"""Of the longer side to the shorter: beyond it sizes are rounded to more tokens than the projector's most."""

MIN_SECONDS = 0.1
"""Shorter sounds are filled up with silence: some projectors need two of their steps at the least."""


def check_picture(picture: PictureData) -> None:
    """Raise InvalidRequest for a picture that cannot be prepared."""
    width, height = picture.width, picture.height
    if width < 1 or height < 1:
        raise _wrong(f"an image of {width} x {height} pixels; both sides must have one at least")
    if width * height > MAX_PIXELS:
        raise _wrong(f"an image of {width} x {height} pixels; there may be {MAX_PIXELS} at most")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise _wrong(
            f"an image of {width} x {height} pixels; the longer side may have {MAX_RATIO} times those of the shorter"
        )
    if len(picture.pixels) != 3 * width * height:
        raise _wrong(f"an image of {width} x {height} pixels with {len(picture.pixels)} bytes; 3 a pixel are right")


def sound_samples(sound: SoundData, rate: int) -> NDArray[np.float32]:
    """The samples, with silence behind them where they are too few. Raises InvalidRequest for what is no sound."""
    if sound.rate != rate:
        raise _wrong(f"a sound of {sound.rate} samples a second; this model hears {rate}")
    if not sound.samples or len(sound.samples) % 4:
        raise _wrong(f"a sound of {len(sound.samples)} bytes; whole samples of 4 bytes are right, one at least")
    samples = np.frombuffer(sound.samples, np.float32)
    if not np.isfinite(samples).all():
        raise _wrong("a sound with samples that are not finite numbers")
    n_missing = int(MIN_SECONDS * rate) - len(samples)
    return np.pad(samples, (0, n_missing)) if n_missing > 0 else samples


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"Field 'prompt': {what}", field="prompt")
