"""Checking adapter files against a model before libllama sees them, and reading control vectors.

libllama refuses most files that do not fit, but with sentences about its insides, and it aborts the process on some:
metadata of another type than it expects, a pair whose two ranks differ, an adapter of the input embedding where the
same weights are the output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.files.gguf import STRING, Header, Tensor, read_header
from llamabox.bindings.model import Model, type_sizes
from llamabox.errors import ModelLoadError

FLOAT32 = 6
"""The GGUF type of a 32-bit float."""

ALPHA = "adapter.lora.alpha"
INVOCATION = "adapter.alora.invocation_tokens"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
PAIR = (".lora_a", ".lora_b")

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""Types that an adapter's matrices may have: ggml aborts where it cannot multiply by a type."""

DIRECTION = re.compile(r"direction\.([1-9][0-9]{0,4})")


def check_lora(path: Path, header: Header, model: Model) -> None:
    """Raises ModelLoadError with one line unless `header`, of the file `path`, is of a LoRA that fits `model`."""
    _check_metadata(path, header, model.meta("general.architecture") or "")
    halves = {name: tensor for name, tensor in header.tensors.items() if name.endswith(PAIR)}
    for name in header.tensors:
        if name not in halves and not name.endswith("_norm.weight"):  # some have norms, which libllama ignores
            raise _wrong(path, f"tensor {name!r} is neither of a pair of .lora_a and .lora_b")
    if not halves:
        raise _wrong(path, "it adapts nothing: it has no pair of .lora_a and .lora_b")
    lib = model.native.lib
    known = {getattr(lib, f"GGML_TYPE_{name}") for name in TYPES}
    for name, tensor in halves.items():
        if tensor.kind not in known:
            kind = model.native.text(lib.ggml_type_name(tensor.kind))
            raise _wrong(path, f"tensor {name!r} is of type {kind}; a LoRA has {', '.join(TYPES)}")
    for base in dict.fromkeys(name.removesuffix(PAIR[0]).removesuffix(PAIR[1]) for name in halves):
        _check_pair(path, base, halves, model.header.tensors)


def _check_metadata(path: Path, header: Header, architecture: str) -> None:
    expected = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": architecture}
    for key, value in expected.items():
        found = header.text(key)
        if found is None:
            raise _wrong(path, f"it is no LoRA adapter: it does not say {key} = {value!r}")
        if found != value:
            raise _wrong(path, f"its {key} is {found!r}; a LoRA adapter for this model has {value!r}")
    alpha = header.values.get(ALPHA, 0.0)
    if header.kinds.get(ALPHA, FLOAT32) != FLOAT32 or not isinstance(alpha, float) or not math.isfinite(alpha):
        raise _wrong(path, f"its {ALPHA} is not a finite 32-bit float")
    if INVOCATION in header.kinds:
        raise _wrong(path, "it is an activated LoRA (aLoRA), which is not supported: an ordinary LoRA is needed")


def _check_pair(path: Path, base: str, halves: dict[str, Tensor], model: dict[str, Tensor]) -> None:
    a, b = (halves.get(base + half) for half in PAIR)
    if a is None or b is None:
        raise _wrong(path, f"{base + PAIR[a is not None]!r} is missing, the other half of the pair is there")
    weight = model.get(base)
    if weight is None:
        raise _wrong(path, f"it adapts {base!r}, which this model does not have: it is for another model")
    if base == EMBEDDING and OUTPUT not in model:
        raise _wrong(path, f"it adapts {base!r}, which is the output of this model as well: libllama cannot do that")
    (n_in, n_out, *rest), (a_in, a_out, *a_rest), (b_in, b_out, *b_rest) = (_four(one) for one in (weight, a, b))
    if base.endswith(EMBEDDING):  # rows are looked up in it: a has a row of the rank for each token
        fits = (a_in, a_out, b_out) == (b_in, n_out, n_in)
    else:
        fits = (a_in, a_out, b_out) == (n_in, b_in, n_out)
    if not fits or not rest == a_rest == b_rest:
        shapes = " and ".join(str(list(one.shape)) for one in (a, b))
        raise _wrong(path, f"its pair of the shapes {shapes} does not fit {base!r} of the shape {list(weight.shape)}")


def _four(tensor: Tensor) -> tuple[int, ...]:
    return tensor.shape + (1,) * (4 - len(tensor.shape))


def read_control_vectors(model: Model, scaled: Sequence[tuple[str, float]]) -> NDArray[np.float32]:
    """The sum of strength × direction over files of `direction.N` tensors, for N from 1; shape [n_layer, n_embd].

    Row N - 1 is of layer N. Raises ModelLoadError with one line for a file that does not fit `model`.
    """
    total = np.zeros((model.n_layer, model.n_embd), np.float32)
    for path, strength in scaled:
        for layer, direction in _directions(Path(path), model):
            total[layer - 1] += np.float32(strength) * direction
    if not np.isfinite(total).all():
        raise ModelLoadError(f"the control vectors {', '.join(path for path, _ in scaled)} add up to no finite numbers")
    return total


def _directions(path: Path, model: Model) -> list[tuple[int, NDArray[np.float32]]]:
    header = read_header(path, type_sizes(model.native))
    if header.kinds.get("general.architecture") != STRING or not header.tensors:
        raise _wrong(path, "it is no control vector: it has no tensor direction.N")
    found = []
    for name, tensor in header.tensors.items():
        match = DIRECTION.fullmatch(name)
        if match is None:
            raise _wrong(path, f"it is no control vector: tensor {name!r} is not called direction.N with an N from 1")
        if int(match[1]) > model.n_layer:
            raise _wrong(path, f"it has {name!r}, but this model has {model.n_layer} layers: it is for another model")
        if tensor.kind != model.native.lib.GGML_TYPE_F32 or tensor.shape != (model.n_embd,):
            shape = list(tensor.shape)
            raise _wrong(path, f"{name!r} has the shape {shape}; {model.n_embd} 32-bit floats are right for this model")
        start = header.data_start + tensor.offset
        direction = np.fromfile(path, "<f4", model.n_embd, offset=start).astype(np.float32)
        if not np.isfinite(direction).all():
            raise _wrong(path, f"{name!r} has numbers that are not finite")
        found.append((int(match[1]), direction))
    return found


def _wrong(path: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"{path} cannot be loaded: {what}")
