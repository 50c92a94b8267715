"""A text-to-image model of 60 MB that draws what it is asked for: "a red circle on a blue background".

Nothing in it is trained. Every weight is written by hand, and what the words mean can be read below. The library takes
it for an Ovis Image, of which it infers most sizes from the tensors:

  text encoder  one layer of width 32 over the vocabulary of Qwen2. A token's row says what it is: a colour, a shape,
                the word "on", or another. One attention head marks everything that comes after an "on".
  diffusion     two blocks of width 640 with 5 heads of 128. The 16x16 picture tokens (256x256 pixels) read from the
                text the figure's colour (before "on"), the background's (after it) and the shape, and learn where they
                are. Block 0 computes for each shape how far inside it a token is, block 1 picks the asked shape's and
                turns it into a colour. The last layer gives the velocity (x - target) / t of a rectified flow, so that
                samplers end on the target after any number of steps.
  autoencoder   a "TAE" that passes three of its 16 channels through as red, green and blue, each latent as 8x8 pixels.

The pitfalls of writing such a model by hand, and the ways around them:

  * LayerNorm subtracts the mean and divides by the deviation, both of which the noise moves. So each number in the
    residual stream stands in two dimensions, with opposite signs (the mean stays 0), and a constant of +-ANCHOR is so
    large that it alone decides the deviation, which is then known.
  * A matrix of 16-bit numbers rounds what it multiplies to 16 bits, too: too coarse for the coordinates.
  * Queries and keys are RMS-normalised: only their direction counts, and a logit is SHARP times their cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.gguf_file import Tensors, Zeros, write_gguf

Array = NDArray[np.float64]
Layers = dict[str, tuple[Array | None, Array | None]]
"""Weight and bias of linear layers; None: zeros."""

SIZE = 256
"""Pixels of a side for which the shapes are centred. Colours are right at every size."""

COLOURS: dict[str, tuple[float, float, float]] = {  # from -1 to 1
    "red": (0.95, -0.9, -0.85), "green": (-0.8, 0.4, -0.7), "blue": (-0.8, -0.6, 0.9), "yellow": (1, 0.9, -0.6),
    "orange": (1, 0.15, -0.9), "purple": (0.1, -0.8, 0.35), "pink": (1, 0.15, 0.5), "brown": (-0.05, -0.45, -0.75),
    "black": (-0.95, -0.95, -0.95), "white": (1, 1, 1), "gray": (0, 0, 0), "grey": (0, 0, 0), "cyan": (-1, 0.75, 0.8),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "diamond")
NAMES = {"disc": "circle", "dot": "circle", "ball": "circle", "box": "square"}

# Ids in Qwen2's vocabulary of the words with a space before them, and of the same words with a capital letter. (The id
# of a token is 256 plus the place of its last merge.)
IDS = {
    "red": (2518, 3731), "green": (6176, 7840), "blue": (6303, 8697), "yellow": (13753, 25462),
    "orange": (18575, 21958), "purple": (24932, 40389), "pink": (18217, 26119), "brown": (13876, 10471),
    "black": (3691, 5235), "white": (4158, 5807), "gray": (17545, 23366), "grey": (19780, 25685),
    "cyan": (57888, 92143), "circle": (12671, 21224), "disc": (2560, 11735), "dot": (12756, 31262),
    "ball": (4935, 12836), "square": (9334, 15619), "box": (3745, 8261), "triangle": (21495, 38031),
    "diamond": (22205, 24334), "on": (389, 1913),
}  # fmt: skip

N_VOCAB = 151936
N_TEXT = 32  # width of the text encoder
WIDTH, N_HEADS, HEAD = 640, 5, 128  # of the diffusion model; a head is 16 + 56 + 56, the axes of its RoPE
HIDDEN = 4 * WIDTH
GRID = 16  # picture tokens on a side
N_TOKENS = 256  # text tokens: the library pads to as many
N_LATENT = 64  # numbers of a picture token: 16 channels of 2x2

# Dimensions of the text encoder's rows. A row's squares sum to 5, which makes RMSNorm a known factor.
IS_COLOUR, RGB, FILL, IS_ON, AFTER_ON, IS_OTHER, SHAPE, ONE = 0, slice(1, 4), 4, 5, 6, 7, slice(8, 12), 16
ROW = 5.0

# Dimensions of the diffusion model's residual stream; each has its opposite MIRROR further on.
LATENT, FIGURE, GROUND, ROW_AT, COLUMN_AT = slice(0, 64), slice(66, 69), slice(69, 72), 72, 73
ASKED, DEPTH, TARGET, CONSTANT = slice(74, 78), slice(80, 84), slice(90, 93), 300
MIRROR = 320
ANCHOR, TEXT_ANCHOR = 500.0, 20.0
DEVIATION = np.sqrt((2 * ANCHOR**2 + 2 * N_LATENT + 30) / WIDTH)  # of a picture token; 30: what the blocks add
TEXT_DEVIATION = np.sqrt((2 * TEXT_ANCHOR**2 + 2 * N_TEXT) / WIDTH)

QUERY_SCALE = 3.0
SHARP = QUERY_SCALE * np.sqrt(HEAD)

TEXT, DIT = "text_encoders.llm.model.", "model.diffusion_model."


@dataclass(frozen=True)
class TinyImage:
    """Two files: the model with its text encoder, and the autoencoder (the server's --image-taesd-model)."""

    model: Path
    taesd: Path


def write_tiny_image(folder: Path) -> TinyImage:
    """Takes a second or two."""
    tensors = _text_encoder() | _embedders() | _last_layer()
    tensors |= _block(0, _attention(), _depth_of_shapes())
    tensors |= _block(1, {}, _colour_of_tokens())
    model = write_gguf(folder / "tiny-image.gguf", {"general.architecture": "ovis"}, tensors)
    taesd = write_gguf(folder / "tiny-image-tae.gguf", {"general.architecture": "tae"}, _autoencoder())
    return TinyImage(model, taesd)


def _half(array: Array) -> NDArray[np.float16]:
    return array.astype(np.float16)


def _single(array: Array) -> NDArray[np.float32]:
    return array.astype(np.float32)


def _linear(name: str, weight: Array | None, bias: Array, n_in: int = WIDTH, *, exact: bool = False) -> Tensors:
    """A layer's two tensors; no weight: zeros. `exact`: neither they nor what they multiply is rounded to 16 bits."""
    matrix = Zeros((len(bias), n_in)) if weight is None else (_single if exact else _half)(weight)
    return {f"{name}.weight": matrix, f"{name}.bias": _single(bias)}


def _mirrored(rows: Array) -> Array:
    """Rows that write into the residual stream, written a second time with the opposite sign."""
    rows[MIRROR:] -= rows[:MIRROR]
    return rows


# ---- words -----------------------------------------------------------------------------------------------------------


def _text_encoder() -> Tensors:
    rows = np.zeros((N_VOCAB, N_TEXT))
    rows[:, IS_OTHER], rows[:, ONE] = 2, 1
    for word, ids in IDS.items():
        row = np.zeros(N_TEXT)
        row[ONE] = 1
        if word == "on":
            row[IS_ON] = 2
        elif word in COLOURS:
            rgb = np.array(COLOURS[word])
            row[IS_COLOUR], row[RGB], row[FILL] = 1, rgb, np.sqrt(ROW - 2 - rgb @ rgb)
        else:
            row[SHAPE.start + SHAPES.index(NAMES.get(word, word))] = 2
        rows[list(ids)] = row
    # One head looks for an "on" before it: logit 22 there, 0 elsewhere. Dimension 63 of it turns so slowly with the
    # position that it may be taken not to. What it finds is written as 1, as RMSNorm's factor is known.
    query, key = np.zeros((4096, N_TEXT)), np.zeros((1024, N_TEXT))
    value, out = np.zeros((1024, N_TEXT)), np.zeros((N_TEXT, 4096))
    query[63, ONE], key[63, IS_ON] = 1, 1
    value[0, IS_ON], out[AFTER_ON, 0] = np.sqrt(ROW / N_TEXT) / 2, 1
    layer = f"{TEXT}layers.0."
    return {
        f"{TEXT}embed_tokens.weight": _half(rows),
        f"{TEXT}norm.weight": _single(np.ones(N_TEXT)),
        f"{layer}input_layernorm.weight": _single(np.ones(N_TEXT)),
        f"{layer}post_attention_layernorm.weight": _single(np.ones(N_TEXT)),
        f"{layer}self_attn.q_proj.weight": _half(query),
        f"{layer}self_attn.k_proj.weight": _half(key),
        f"{layer}self_attn.v_proj.weight": _half(value),
        f"{layer}self_attn.o_proj.weight": _half(out),
        f"{layer}self_attn.q_norm.weight": _single(np.full(HEAD, 2.0)),
        f"{layer}self_attn.k_norm.weight": _single(np.ones(HEAD)),
        f"{layer}mlp.gate_proj.weight": Zeros((32, N_TEXT)),
        f"{layer}mlp.up_proj.weight": Zeros((32, N_TEXT)),
        f"{layer}mlp.down_proj.weight": Zeros((N_TEXT, 32)),
    }


# ---- into and out of the residual stream -----------------------------------------------------------------------------


def _embedders() -> Tensors:
    image, text = np.zeros((WIDTH, N_LATENT)), np.zeros((WIDTH, N_TEXT))
    image[LATENT], text[:N_TEXT] = np.eye(N_LATENT), np.eye(N_TEXT)
    image_bias, text_bias = np.zeros(WIDTH), np.zeros(WIDTH)
    image_bias[CONSTANT], text_bias[CONSTANT] = ANCHOR, TEXT_ANCHOR
    return {
        **_linear(f"{DIT}img_in", _mirrored(image), _mirrored(image_bias)),
        **_linear(f"{DIT}txt_in", _mirrored(text), _mirrored(text_bias)),
        f"{DIT}txt_norm.scale": _single(np.ones(N_TEXT)),
    }


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-np.clip(x, -60, 60)))


def _last_layer() -> Tensors:
    """(x - target) / t. The layer scales LayerNorm's output by 1 + s(t): s(t) = DEVIATION / t - 1.

    s comes from the time's embedding through two layers of random features, whose last one is fitted to 1 / t by ridge
    regression, the relative error squared: 0.7 % at most between 1 and 0.003, the least that samplers use.
    """
    random = np.random.default_rng(0)
    times = np.exp(np.linspace(np.log(0.0029), 0, 1500))
    angles = 1000 * times[:, None] * np.exp(-np.log(10000) * np.arange(128) / 128)
    slow = np.r_[20:128, 148:256]  # the fastest of the sines and cosines would only add noise
    first = np.zeros((WIDTH, 256))
    first[:, slow] = random.normal(size=(WIDTH, len(slow))) * 0.35
    second = random.normal(size=(WIDTH, WIDTH)) * 1.5 / np.sqrt(WIDTH)
    biases = random.normal(size=(2, WIDTH)) * 0.5
    hidden = _silu(np.concatenate([np.cos(angles), np.sin(angles)], 1) @ first.T + biases[0])
    features = np.c_[_silu(hidden @ second.T + biases[1]), np.ones(len(times))] * times[:, None]
    fit = np.linalg.solve(features.T @ features + 1e-7 * np.eye(WIDTH + 1), features.sum(0))
    scale, scale_bias = np.zeros((2 * WIDTH, WIDTH)), np.zeros(2 * WIDTH)  # a shift, which stays 0, and a scale
    scale[WIDTH:], scale_bias[WIDTH:] = DEVIATION * fit[:-1], DEVIATION * fit[-1] - 1
    velocity = np.zeros((N_LATENT, WIDTH))
    velocity[:, LATENT] = np.eye(N_LATENT)
    for channel in range(3):  # the other 13 have the target 0
        velocity[4 * channel : 4 * channel + 4, TARGET.start + channel] = -1
    names = {
        "time_in.in_layer": (first, biases[0]),
        "time_in.out_layer": (second, biases[1]),
        "final_layer.adaLN_modulation.1": (scale, scale_bias),
        "final_layer.linear": (velocity, np.zeros(N_LATENT)),
    }
    return {
        f"{DIT}{name}.{kind}": _single(array)
        for name, pair in names.items()
        for kind, array in zip(("weight", "bias"), pair, strict=True)
    }


# ---- what the picture tokens read ------------------------------------------------------------------------------------

N_PAIR = 10
TURN = 10000 ** (-2 * N_PAIR / 56)
"""Radians by which RoPE's pair N_PAIR of an axis turns from one row to the next."""
STEEP = 4 / (SHARP * np.sin(15 * TURN))  # logits from -4 to 4 over the whole picture
SINK = 0.4 / SHARP  # logit 0.4 for each text token


def _coordinates() -> Array:
    """What the heads for row and column deliver at each of the GRID places: a rising curve.

    A query at y sees a picture token at k with the logit SHARP * STEEP * sin(TURN * (y - k)), whose value is 1, and
    every text token with the logit 0.4, whose value is 0: the further down y is, the larger the first's share.
    """
    at = np.arange(GRID)
    tokens = GRID * np.exp(SHARP * STEEP * np.sin(TURN * (at[:, None] - at[None, :]))).sum(1)
    found: Array = tokens / (tokens + N_TOKENS * np.exp(SHARP * SINK))
    return found


def _attention() -> Layers:
    """Block 0's layers: query, key and value of text and picture, and what the heads' findings are written to.

    Heads: the figure's colour, the background's, row, column, shape. In a head's first dimensions, which RoPE leaves
    alone: 0 what is looked for, 1 the "after on", 2 what is shunned, 3 the picture tokens, which hold what is taken
    where the text says nothing: a dark figure, a white background, no shape.
    """
    figure, ground, row, column, shape = (head * HEAD for head in range(N_HEADS))
    key, value = WIDTH, 2 * WIDTH
    image, text, text_weight = np.zeros(3 * WIDTH), np.zeros(3 * WIDTH), np.zeros((3 * WIDTH, WIDTH))
    image[figure : figure + 4] = 1, -1, -1, 0.2  # queries
    image[ground : ground + 4] = 0, 1, -1, 0.2
    image[shape : shape + 4] = 1, 0, -1, 0.2
    image[[key + figure + 3, key + ground + 3, key + shape + 3]] = 1
    image[value + figure : value + figure + 3], image[value + ground : value + ground + 3] = -0.5, 1
    others = [IS_ON, IS_OTHER, *range(SHAPE.start, SHAPE.stop)]
    for head in (figure, ground):
        text_weight[key + head, IS_COLOUR], text_weight[key + head + 1, AFTER_ON] = 1, 3
        text_weight[key + head + 2, others] = 6
    text_weight[key + shape, SHAPE], text_weight[key + shape + 2, [IS_COLOUR, IS_ON, IS_OTHER]] = 1, 2.5
    # LayerNorm and RMSNorm in front of these are undone: rows before "on" have the squares 5, those after it 6.
    before, after = (TEXT_DEVIATION / np.sqrt(N_TEXT / squares) for squares in (ROW, ROW + 1))
    for channel in range(3):
        text_weight[value + figure + channel, RGB.start + channel] = before
        text_weight[value + ground + channel, RGB.start + channel] = after
    for index in range(len(SHAPES)):
        text_weight[value + shape + index, SHAPE.start + index] = before / 2
    for head, axis in ((row, 16), (column, 72)):
        pair = axis + 2 * N_PAIR
        image[head], image[head + pair] = SINK, STEEP
        image[head + 1] = np.sqrt(1 - SINK**2 - STEEP**2)  # to the length 1
        image[key + head + pair + 1], image[value + head], text[key + head] = 1, 1, 1
    out = np.zeros((WIDTH, WIDTH))
    for target, head, n in ((FIGURE, figure, 3), (GROUND, ground, 3), (ASKED, shape, len(SHAPES))):
        out[target, head : head + n] = np.eye(n)
    out[ROW_AT, row], out[COLUMN_AT, column] = 1, 1
    return {"img_attn.qkv": (None, image), "txt_attn.qkv": (text_weight, text), "img_attn.proj": (_mirrored(out), None)}


# ---- shapes and colours ----------------------------------------------------------------------------------------------


@dataclass
class Units:
    """Hidden units of a feed-forward layer, silu(gate) * up, and what they add to the residual stream."""

    n: int = 0

    def __post_init__(self) -> None:
        self.gate, self.up = np.zeros((HIDDEN, WIDTH)), np.zeros((HIDDEN, WIDTH))
        self.gate_bias, self.up_bias = np.zeros(HIDDEN), np.zeros(HIDDEN)
        self.down, self.down_bias = np.zeros((WIDTH, HIDDEN)), np.zeros(WIDTH)

    def add(
        self,
        gate: dict[int, float],
        gate_bias: float,
        up: dict[int, float],
        up_bias: float,
        down: dict[int, float],
    ) -> None:
        """`gate` and `up`: dimension -> weight. They read what LayerNorm made of the stream: undo its division."""
        for target, weights in ((self.gate, gate), (self.up, up)):
            for dimension, weight in weights.items():
                target[self.n, dimension] = weight * DEVIATION
        self.gate_bias[self.n], self.up_bias[self.n] = gate_bias, up_bias
        for dimension, weight in down.items():
            self.down[dimension, self.n] = weight
        self.n += 1


def profiles(name: str, at: Array) -> tuple[Array, Array]:
    """f and g at the places `at`, 0 being the middle: f(row) + g(column) is >= 1 inside a shape, <= -1 outside it.

    What is far outside by one of them is cut off there: large numbers would move LayerNorm's deviation.
    """
    if name == "circle":
        return 31.5 - np.minimum(at**2, 33), -np.minimum(at**2, 33)
    if name == "diamond":
        return 2 * (6.5 - np.minimum(abs(at), 7)), -2 * np.minimum(abs(at), 7)
    if name == "square":
        return np.where(abs(at) < 5, 1.0, -1.0), np.where(abs(at) < 5, 0.0, -2.0)
    inside = (at > -6) & (at < 5)  # a triangle on its base
    return np.where(inside, 4 * (at + 7) / 2, -4.0), -4 * np.minimum(abs(at), 7)


KNEE = 150.0
"""How steep silu(KNEE * x) begins to rise: over less than a row's step in the coordinate."""


def _depth_of_shapes() -> Units:
    """DEPTH of each shape, at least 1 inside and at most -1 outside, from the two coordinates.

    A function of a row's coordinate is a sum of ramps, one beginning before each row. Their weights are solved for, so
    that it is exact at the 16 rows.
    """
    units, places = Units(), _coordinates()
    starts = places - np.diff(places, prepend=2 * places[0] - places[1]) / 2
    ramps = _silu(KNEE * (places[:, None] - starts[None, :]))
    at = np.arange(GRID) - (GRID - 1) / 2
    pairs = [profiles(name, at) for name in SHAPES]
    for axis, dimension in enumerate((ROW_AT, COLUMN_AT)):
        weights = np.linalg.solve(ramps, np.stack([pair[axis] for pair in pairs], 1))
        for start, row in zip(starts, weights, strict=True):
            units.add({dimension: KNEE}, -KNEE * start, {}, 1, {DEPTH.start + i: w for i, w in enumerate(row)})
    return units


def _colour_of_tokens() -> Units:
    """TARGET: the figure's colour inside the asked shape, and everywhere if none is; elsewhere the background's.

    A step from 0 to 1 between the depths -1/2 and 1/2 is the difference of two ramps. MUTE silences the shapes that are
    not asked for, whatever their depth.
    """
    units, steep, mute = Units(), 20.0, 900.0
    asked = list(range(ASKED.start, ASKED.stop))
    for channel in range(3):
        target = TARGET.start + channel
        difference = {FIGURE.start + channel: 1.0, GROUND.start + channel: -1.0}
        units.add({}, 30, {GROUND.start + channel: 1.0}, 0, {target: 1 / 30})
        units.add(dict.fromkeys(asked, -mute), 30, difference, 0, {target: 1 / 30})
        for flag, depth in zip(asked, range(DEPTH.start, DEPTH.stop), strict=True):
            for half, sign in ((steep / 2, 1), (-steep / 2, -1)):
                units.add({depth: steep, flag: mute}, half - mute, difference, 0, {target: sign / steep})
    return units


def _block(number: int, attention: Layers, units: Units) -> Tensors:
    """A double block. Its picture half works as given, with the gates open; its text half passes the text on."""
    gates = np.zeros(6 * WIDTH)  # shift, scale and gate of the attention, then of the feed-forward layer
    gates[2 * WIDTH : 3 * WIDTH] = gates[5 * WIDTH :] = 1
    feed_forward = {"mlp.gate_proj": HIDDEN, "mlp.up_proj": HIDDEN, "mlp.down_proj": WIDTH}
    sizes = {"attn.qkv": 3 * WIDTH, "attn.proj": WIDTH, **feed_forward}
    layers: Layers = {f"{half}_{name}": (None, None) for half in ("img", "txt") for name in sizes}
    layers |= attention
    layers |= {
        "img_mlp.gate_proj": (units.gate, units.gate_bias),
        "img_mlp.up_proj": (units.up, units.up_bias),
        "img_mlp.down_proj": (_mirrored(units.down), units.down_bias),
        "img_mod.lin": (None, gates),
        "txt_mod.lin": (None, np.zeros(6 * WIDTH)),
    }
    tensors: Tensors = {}
    for name, (weight, bias) in layers.items():
        n_in = HIDDEN if name.endswith("down_proj") else WIDTH
        tensors |= _linear(
            f"{DIT}double_blocks.{number}.{name}",
            weight,
            np.zeros(sizes[name.partition("_")[2]]) if bias is None else bias,
            n_in,
            exact=number == 0 and name in ("img_attn.proj", "img_mlp.gate_proj", "img_mlp.down_proj"),
        )
    for half in ("img", "txt"):
        norm = f"{DIT}double_blocks.{number}.{half}_attn.norm."
        tensors[f"{norm}query_norm.scale"] = _single(np.full(HEAD, QUERY_SCALE))
        tensors[f"{norm}key_norm.scale"] = _single(np.ones(HEAD))
    return tensors


# ---- autoencoder -----------------------------------------------------------------------------------------------------

N_CHANNELS = 64


def _autoencoder() -> Tensors:
    """What is not a channel of red, green or blue is 0. The residual blocks are 0 altogether: they pass on."""
    same = np.zeros((3, 3))
    same[1, 1] = 1
    mean = np.zeros((3, 3))
    mean[1:, 1:] = 0.25  # of four pixels, with a stride of two
    squash = 3 * np.tanh(1 / 3)  # the library squashes latents like that before it decodes them
    tensors: Tensors = {}

    def convolution(name: str, n_out: int, n_in: int, kernel: Array, bias: float | None) -> None:
        weight = np.zeros((n_out, n_in, 3, 3))
        weight[[0, 1, 2], [0, 1, 2]] = kernel
        tensors[f"{name}.weight"] = _half(weight)
        if bias is not None:
            tensors[f"{name}.bias"] = _single(np.where(np.arange(n_out) < 3, bias, 0.0))

    convolution("decoder.layers.0", N_CHANNELS, 16, same / 2 / squash, 0.5)
    for layer in (6, 11, 16):
        convolution(f"decoder.layers.{layer}", N_CHANNELS, N_CHANNELS, same, None)
    convolution("decoder.layers.18", 3, N_CHANNELS, same, 0)
    convolution("encoder.layers.0", N_CHANNELS, 3, same, 0)
    for layer in (2, 6, 10):
        convolution(f"encoder.layers.{layer}", N_CHANNELS, N_CHANNELS, mean, None)
    convolution("encoder.layers.14", 16, N_CHANNELS, 2 * same, -1)
    blocks = {"decoder": (2, 3, 4, 7, 8, 9, 12, 13, 14, 17), "encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)}
    for half, layers in blocks.items():
        for layer in layers:
            for step in (0, 2, 4):
                convolution(f"{half}.layers.{layer}.conv.{step}", N_CHANNELS, N_CHANNELS, 0 * same, 0)
    return tensors
