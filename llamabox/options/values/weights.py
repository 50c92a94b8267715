"""Option values that say where weights are kept. Raise ValueError as those of `common` do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llamabox.wire.text_config import TensorBuffers, TextConfig

MAX_LAYERS = 1024
"""More than any model has."""

CPU = "CPU"
"""ggml's name of the CPU's buffer type."""

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
DENSE = r"\.ffn_(up|down|gate)\."
"""Feed-forward weights in the names of llama.cpp's tensors: those of experts, and the others."""


def tensor_buffers(text: str) -> TensorBuffers:
    r"""`PATTERN=TYPE` separated by commas, as `\.ffn_.*_exps=CPU`."""
    found: list[tuple[str, str]] = []
    for part in text.split(","):
        pattern, sign, kind = part.partition("=")
        if not pattern or not sign or not kind:
            raise ValueError(rf"{part!r}: expected PATTERN=TYPE, as in \.ffn_.*_exps=CPU")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r}: expected a regular expression ({error})") from None
        found.append((pattern, kind))
    return tuple(found)


def with_cpu_weights(config: TextConfig, values: Mapping[str, Any]) -> TextConfig:
    """The configuration with what -cmoe, -ncmoe and -ncffn say, and their like for the draft model, behind -ot."""
    return replace(
        config,
        tensor_buffers=(
            *config.tensor_buffers,
            *_on_cpu(EXPERTS, values.get("n_cpu_moe", 0), of_all=values.get("cpu_moe", False)),
            *_on_cpu(DENSE, values.get("n_cpu_ffn", 0)),
        ),
        tensor_buffers_draft=(
            *config.tensor_buffers_draft,
            *_on_cpu(EXPERTS, values.get("n_cpu_moe_draft", 0), of_all=values.get("cpu_moe_draft", False)),
        ),
    )


def _on_cpu(weights: str, n_layers: int, *, of_all: bool = False) -> TensorBuffers:
    """For weights of the first layers, or `of_all`."""
    if of_all:
        return ((weights, CPU),)
    return tuple((rf"blk\.{layer}{weights}", CPU) for layer in range(n_layers))
