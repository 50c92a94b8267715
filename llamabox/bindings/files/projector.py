"""Checking a projector file (mmproj) against a model before libmtmd sees it.

libmtmd refuses most files that do not fit, but it aborts the process where a value is of another type than it expects,
and divides by some numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

from llamabox.bindings.files.gguf import STRING, Header, read_header
from llamabox.bindings.files.kind import instead_of_projector
from llamabox.bindings.model import Model, type_sizes
from llamabox.errors import ModelLoadError

UINT32, INT32, FLOAT32, BOOL, ARRAY = 4, 5, 6, 7, 9
"""GGUF types."""

KINDS = {
    BOOL: re.compile(r"clip\.(has_\w+|use_gelu|use_silu)"),
    STRING: re.compile(r"clip\.(\w+\.)*(projector_type|mm_patch_merge_type)"),
    INT32: re.compile(r"clip\.minicpmv_version"),
    FLOAT32: re.compile(r"clip\.(\w+\.)*attention\.layer_norm_epsilon"),
    ARRAY: re.compile(r"clip\.vision\.(image_mean|image_std|image_grid_pinpoints|feature_layer)"),
    UINT32: re.compile(
        r"clip\.(\w+\.)*(image_size|patch_size|(embedding|feed_forward)_length|block_count|projection_dim|num_mel_bins"
        r"|attention\.head_count(_kv)?|image_(min|max)_pixels|projector\.scale_factor|spatial_merge_size)"
    ),
}
"""The type that values of these names have: libmtmd asserts it."""

DIVISOR = re.compile(r"clip\.(vision|audio)\.(image_size|patch_size|attention\.head_count|num_mel_bins)")

PREFIXES = re.compile(r"^(mtmd_init_from_file: error: )?(clip_init: failed to load model '.*': )?(\w+: )?")
"""Names of libmtmd's functions before what it says."""

MISMATCH = re.compile(r"text model \(n_embd = (\d+)\) and \S*mmproj \(n_embd = (\d+)\)")


def check_projector(path: Path, model: Model) -> None:
    """Raises ModelLoadError with one line unless the file is a projector whose numbers can be.

    And unless `model` has a vocabulary: libmtmd puts texts around media.
    """
    header = read_header(path, type_sizes(model.native))
    if (what := instead_of_projector(header)) is not None:
        raise _wrong(path, what)
    if model.vocab.type == model.native.lib.LLAMA_VOCAB_TYPE_NONE:
        raise _wrong(path, "the model has no vocabulary, so it takes no images or sound")
    for key, kind in header.kinds.items():
        if key.startswith("clip."):
            _check_value(path, header, key, kind)
    if not any(header.values.get(f"clip.has_{kind}_encoder") for kind in ("vision", "audio")):
        raise _wrong(path, "it says neither clip.has_vision_encoder nor clip.has_audio_encoder: it takes no input")


def _check_value(path: Path, header: Header, key: str, kind: int) -> None:
    value = header.values.get(key)
    right = next((one for one, names in KINDS.items() if names.fullmatch(key)), None)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if kind != right and (right is not None or (is_whole and kind != UINT32)):
        raise _wrong(path, f"its {key} is of another type than this value has")
    number = header.number(key)
    if number is not None and not (1 if DIVISOR.fullmatch(key) else 0) <= number < 1 << 31:
        raise _wrong(path, f"its {key} is {number}, which cannot be")


def why_not_loaded(line: str) -> str:
    """The first error that libmtmd logged, in words for a user."""
    if found := MISMATCH.search(line):
        return (
            f"it is for models whose embeddings have {found[2]} numbers, and those of this model have {found[1]}: "
            "it belongs to another model"
        )
    return PREFIXES.sub("", line)


def _wrong(path: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"{path} cannot be loaded: {what}")
