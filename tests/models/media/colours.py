"""A projector of type "mlp" (LLaVA) that sees colours: 16 patches of a picture read as a caption that names two.

The picture is squeezed to 64 x 64 pixels, 4 x 4 patches of 16. The patch convolution takes a patch's mean red, green
and blue; the position embedding adds a one-hot of the patch's number; the two layers of the projector make of both
what the language model has for a word. So the 16 rows of a picture read "The image shows a large RED square in the
middle of a BLUE background.", RED being the colour of patch 5, next to the middle, and BLUE that of patch 12, in the
corner. Nothing is trained but a ridge regression on random features, which tells twelve colours apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_file import Value, boolean, float32_array
from tests.models.media.words import Words

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 40),
    "blue": (30, 60, 220),
    "yellow": (250, 230, 40),
    "orange": (250, 140, 20),
    "purple": (130, 30, 160),
    "pink": (255, 130, 190),
    "brown": (120, 70, 30),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "cyan": (0, 220, 230),
}
"""Red, green and blue of each colour that is seen."""

SHADES = {
    "red": ((255, 0, 0), (139, 0, 0)),
    "green": ((0, 255, 0), (0, 128, 0)),
    "blue": ((0, 0, 255), (0, 0, 128)),
    "yellow": ((255, 255, 0),),
    "orange": ((255, 165, 0),),
    "purple": ((128, 0, 128),),
    "pink": ((255, 0, 255), (255, 192, 203)),
    "brown": ((139, 69, 19),),
    "black": ((40, 40, 40),),
    "cyan": ((0, 255, 255),),
}
"""More of them."""

COLOUR = ""
CAPTION = (
    *("The", " image", " shows", " a", " large", COLOUR, " square", " in"),
    *(" the", " middle", " of", " a", COLOUR, " background", ".", "\n"),
)
"""A word for each patch; COLOUR stands for the patch's own."""

N_SIDE, PATCH, N_EMBD = 4, 16, 32
N_PATCHES = N_SIDE * N_SIDE
N_FEATURES = 512
CLOSED = 200.0
"""By how much a feature is below zero outside the patches that have a colour's place: GELU makes nothing of it."""


IDLE_WIDTH = 1 << 15
"""Of the inner layers of an idle tower: the 16 patches of a picture cost some milliseconds in each of its layers."""


def values(n_embd: int, n_idle: int = 0) -> dict[str, Value]:
    """Metadata, for a language model of this width and a tower of so many layers, which are idle."""
    return {
        "clip.has_vision_encoder": boolean(True),
        "clip.vision.projector_type": "mlp",
        "clip.use_gelu": boolean(True),
        "clip.vision.image_size": N_SIDE * PATCH,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": N_EMBD,
        "clip.vision.feed_forward_length": IDLE_WIDTH if n_idle else N_EMBD,
        "clip.vision.projection_dim": n_embd,
        "clip.vision.block_count": n_idle + 1,
        "clip.vision.attention.head_count": 1,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": float32_array(0.5, 0.5, 0.5),
        "clip.vision.image_std": float32_array(0.5, 0.5, 0.5),
    }


def tensors(words: Words, n_idle: int = 0) -> dict[str, NDArray[np.float32]]:
    """Dimensions 0 to 2 of a patch are its colour, from -1 to 1; 3 to 18 tell its number."""
    patches = np.zeros((N_EMBD, 3, PATCH, PATCH))
    for channel in range(3):
        patches[channel, channel] = 1 / PATCH**2
    positions = np.zeros((N_PATCHES, N_EMBD))
    positions[:, 3 : 3 + N_PATCHES] = np.eye(N_PATCHES)

    weights, bias, readout = colour_classifier()
    names = np.stack([words.row(" " + name) for name in COLOURS], axis=1)
    inner = np.zeros((N_FEATURES + N_PATCHES, N_EMBD))
    inner_bias = np.zeros(N_FEATURES + N_PATCHES)
    outer = np.zeros((words.n_embd, N_FEATURES + N_PATCHES))
    inner[:N_FEATURES, :3] = weights
    inner_bias[:N_FEATURES] = bias - CLOSED
    outer[:, :N_FEATURES] = names @ readout.T
    for number, word in enumerate(CAPTION):
        if word == COLOUR:
            inner[:N_FEATURES, 3 + number] = CLOSED
        else:  # one more feature is 10 at this patch, and 0 at the others
            inner[N_FEATURES + number, 3 + number] = 20
            inner_bias[N_FEATURES + number] = -10
            outer[:, N_FEATURES + number] = words.row(word) / 10

    unused = {f"v.blk.{n_idle}.{name}.weight": np.zeros((1, 1)) for name in ("attn_out", "ffn_up", "ffn_down")}
    made = {
        "v.patch_embd.weight": patches,
        "v.position_embd.weight": positions,
        "mm.0.weight": inner,
        "mm.0.bias": inner_bias,
        "mm.2.weight": outer,
        "mm.2.bias": np.zeros(words.n_embd),
        **unused,  # LLaVA leaves out the last layer
    }
    for layer in range(n_idle):
        made |= _idle_layer(f"v.blk.{layer}")
    return {name: array.astype(np.float32) for name, array in made.items()}


def _idle_layer(name: str) -> dict[str, NDArray[np.float64]]:
    """One that adds nothing to what it sees, and is computed as any."""
    found = {f"{name}.{part}.weight": np.ones(N_EMBD) for part in ("ln1", "ln2")}
    found |= {f"{name}.{part}.bias": np.zeros(N_EMBD) for part in ("ln1", "ln2", "attn_q", "attn_k", "attn_v")}
    found |= {
        f"{name}.{part}.weight": np.zeros((N_EMBD, N_EMBD)) for part in ("attn_q", "attn_k", "attn_v", "attn_out")
    }
    return found | {
        f"{name}.ffn_up.weight": np.zeros((IDLE_WIDTH, N_EMBD)),
        f"{name}.ffn_down.weight": np.zeros((N_EMBD, IDLE_WIDTH)),
    }


def colour_classifier() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """W (features, 3), b (features,) and V (features, colours): gelu(W c + b) V is nearly the one-hot of colour c."""
    random = np.random.default_rng(0)
    shades = [(rgb, i) for i, name in enumerate(COLOURS) for rgb in (COLOURS[name], *SHADES.get(name, ()))]
    known = np.array([rgb for rgb, _ in shades]) / 127.5 - 1
    label = np.array([i for _, i in shades])
    near = known[random.integers(len(known), size=4000)] + random.normal(size=(4000, 3)) * 0.12
    seen = np.concatenate([random.uniform(-1, 1, (4000, 3)), near.clip(-1, 1), known.repeat(30, axis=0)])
    nearest = ((seen[:, None] - known[None]) ** 2).sum(axis=-1).argmin(axis=1)

    weights, bias = random.normal(size=(N_FEATURES, 3)) * 2.5, random.uniform(-3, 3, size=N_FEATURES)
    features = gelu(seen @ weights.T + bias)
    wanted = np.eye(len(COLOURS))[label[nearest]]
    readout = np.linalg.solve(features.T @ features + 0.001 * np.eye(N_FEATURES), features.T @ wanted)
    return weights, bias, readout


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """ggml's approximation."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def square(figure: str, background: str, size: int = 96) -> bytes:
    """RGB pixels of a square in the middle of a background, in rows from the top."""
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:] = COLOURS[background]
    pixels[size // 4 : size - size // 4, size // 4 : size - size // 4] = COLOURS[figure]
    return pixels.tobytes()
