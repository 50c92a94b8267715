"""A projector of type "gemma4ua" that hears words: each is a tone of 40 ms.

The type has no encoder: it takes frames of 640 samples at 16 kHz, scales each to a root mean square of 1, and
multiplies it by one matrix. A word's tone has a whole number of cycles a frame, so tones are orthogonal, and the
matrix is a matched filter for each with the word's row behind it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_file import Value, boolean
from tests.models.media.words import Words

RATE, FRAME = 16_000, 640
"""Samples a second, and of a word."""

VOCABULARY = (
    *("The", " secret", " word", " is", " banana", " apple", " dog", " cat", " red", " blue", " green", " sky"),
    *(" Paris", " seven", ".", " sound", " says", " hello", " high", " low", " tone", " of", " a", " and", " in"),
)
"""The words that have a tone."""

CYCLES = {word: 12 + 4 * number for number, word in enumerate(VOCABULARY)}
"""Of a word's tone, in a frame."""


def tone(word: str) -> NDArray[np.float64]:
    """Shape (FRAME,), amplitude 1."""
    return np.asarray(np.sin(2 * np.pi * CYCLES[word] * np.arange(FRAME) / FRAME))


def spoken(*words: str) -> bytes:
    """The words one after the other: float32 samples at RATE."""
    return np.concatenate([0.5 * tone(word) for word in words]).astype("<f4").tobytes()


def values(n_embd: int) -> dict[str, Value]:
    """Metadata, for a language model of this width."""
    return {
        "clip.has_audio_encoder": boolean(True),
        "clip.audio.projector_type": "gemma4ua",
        "clip.audio.embedding_length": FRAME,
        "clip.audio.feed_forward_length": 1,
        "clip.audio.projection_dim": n_embd,
        "clip.audio.block_count": 0,
        "clip.audio.attention.head_count": 1,
        "clip.audio.num_mel_bins": FRAME,
        "clip.audio.attention.layer_norm_epsilon": 1e-6,
    }


def tensors(words: Words) -> dict[str, NDArray[np.float32]]:
    """A tone of root mean square 1 has the amplitude sqrt(2): with it a filter gives 1."""
    filters = np.stack([tone(word) * np.sqrt(2) / FRAME for word in VOCABULARY])
    rows = np.stack([words.row(word) for word in VOCABULARY])
    return {"mm.a.input_projection.weight": (rows.T @ filters).astype(np.float32)}
