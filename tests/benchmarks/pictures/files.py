"""Pictures as cameras make them, for the benchmarks of this folder."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from tests.models.media.colours import COLOURS, square

NAMES = list(COLOURS)

QUALITY = 90
"""Of JPEG files."""

GRAIN = 12.0
"""Standard deviation of a pixel's colours, of 255: a JPEG of 2,000 x 2,000 pixels then takes two megabytes."""


def picture(number: int, side: int, file_format: str = "JPEG") -> bytes:
    """The file of a square on a background with a grain of its own: no two numbers have the same pixels."""
    figure, ground = NAMES[number % len(NAMES)], NAMES[(number + 1 + number // len(NAMES)) % len(NAMES)]
    pixels = np.frombuffer(square(figure, ground, side), np.uint8).reshape(side, side, 3).astype(np.float32)
    pixels += np.random.default_rng(number).normal(0.0, GRAIN, pixels.shape).astype(np.float32)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, file_format, quality=QUALITY)
    return out.getvalue()


def chat(file: bytes, question: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat that asks something about a picture."""
    part = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(file).decode()}}
    content = [part, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, **fields}
