"""Pictures and recordings as clients send them, of the colours and words that the test's projector knows."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from PIL import Image

from tests.models.media.colours import COLOURS, square
from tests.models.media.tones import RATE, spoken

SYSTEM = {"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}
"""As the model's own template writes it. Without it so small a model loses its way behind a picture."""

NAMES = list(COLOURS)
PAIRS = [(figure, NAMES[(at + 1) % len(NAMES)]) for at, figure in enumerate(NAMES)]
"""A figure and its background: each colour is each of both once."""

SECRETS = ("banana", "apple", "Paris", "seven", "cat", "red")


def png(figure: str, background: str) -> bytes:
    """The file of a square in the middle of a background."""
    out = io.BytesIO()
    Image.frombytes("RGB", (96, 96), square(figure, background)).save(out, "PNG")
    return out.getvalue()


def wav(*words: str) -> bytes:
    """The file of spoken words, in 16 bits."""
    samples = np.frombuffer(spoken(*words), "<f4") * 32767
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def secret(word: str) -> bytes:
    """The file of a sentence with a word to be asked for."""
    return wav("The", " secret", " word", " is", f" {word}", ".")


def text_of(data: bytes) -> str:
    """In base64."""
    return base64.b64encode(data).decode()


def image(figure: str, background: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + text_of(png(figure, background))}}


def sound(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": text_of(data), "format": "wav"}}


def user(*parts: Any) -> dict[str, Any]:
    """A message of texts and parts."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
