"""The control vector of a text worker, for as long as it runs."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.bindings.context import Context
from llamabox.bindings.files.adapter import read_control_vectors
from llamabox.bindings.model import Model
from llamabox.bindings.weights.adapters import Vector, set_control_vector
from llamabox.errors import ModelLoadError
from llamabox.wire.text_config import TextConfig


@dataclass(frozen=True, slots=True)
class Steering:
    """A vector that is added to the output of layers `first` to `last`. Its shape is [n_layer, n_embd]."""

    vector: Vector
    first: int
    last: int

    def apply(self, context: Context) -> None:
        set_control_vector(context, self.vector, self.first, self.last)

    @property
    def key(self) -> bytes:
        """Bytes that differ for two vectors under which the cells of a context differ."""
        return repr((self.first, self.last)).encode() + self.vector.tobytes()


def read_steering(config: TextConfig, model: Model) -> Steering | None:
    """None where nothing is steered: no file, or strengths that come to nothing. Raises ModelLoadError."""
    start, end = config.control_vector_layers
    first, last = start or 1, end or model.n_layer
    if first > last:
        raise ModelLoadError(f"--control-vector-layer-range: this model has {last} layers, there is no layer {first}")
    vector = read_control_vectors(model, config.control_vectors)
    return Steering(vector, first, last) if vector.any() else None
