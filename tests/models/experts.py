"""A mixture of experts out of a model without: each expert of a layer is that layer's feed-forward network.

Whichever experts a router chooses, their weighted mean is what the model itself computes, but for rounding: an oracle
for everything between the file and the text.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.models.gguf_edit import Contents, Entry, number, padded, read_contents

F32 = 0
FEED_FORWARD = re.compile(r"blk\.(?P<layer>\d+)\.ffn_(?P<part>gate|up|down)\.weight")


def with_experts(source: Path, target: Path, *, n_experts: int, n_used: int) -> Path:
    """Writes `source`, of the architecture llama, with `n_experts` in each layer to `target`, which is returned."""
    contents = read_contents(source)
    tensors: dict[str, Entry] = {}
    for name, entry in contents.tensors.items():
        match = FEED_FORWARD.fullmatch(name)
        if match is None:
            tensors[name] = entry
            continue
        prefix = f"blk.{match['layer']}.ffn_"
        tensors[f"{prefix}{match['part']}_exps.weight"] = Entry(
            (*entry.shape, n_experts), entry.kind, entry.data * n_experts
        )
        if match["part"] == "gate":
            router = np.random.default_rng(int(match["layer"])).standard_normal((n_experts, entry.shape[0]))
            data = padded(router.astype(np.float32).tobytes())
            tensors[f"{prefix}gate_inp.weight"] = Entry((entry.shape[0], n_experts), F32, data)
    added = {"llama.expert_count": n_experts, "llama.expert_used_count": n_used}
    pairs = {**contents.pairs, **{key: number(key, value) for key, value in added.items()}}
    return Contents(pairs, tensors).write(target)
