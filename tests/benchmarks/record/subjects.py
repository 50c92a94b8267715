"""The models of the table: made once with random weights, the demo model, a real encoder, or a user's own file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamabox.bindings.files.gguf import TOKENS, Header, Tensor, check_model
from llamabox.bindings.model import type_sizes
from llamabox.demo import ensure_demo_model
from tests.models.minilm import FILE_TYPES, Matrices, load_encoder, write_encoder
from tests.models.shaped.llama import Shape, write_shaped
from tests.models.shaped.weights import FORMATS
from tests.observed import native

SHAPES = {
    "1b": Shape(),  # 1.2 billion weights, shaped as Llama 3.2's 1B
    "3b": Shape(n_layer=28, n_embd=3072, n_head=24),
    "moe": Shape(n_layer=16, n_embd=1024, n_ff=768, n_head=16, n_head_kv=4, n_experts=32, n_used=4),
}
ENCODER = "minilm"
MATRICES: dict[str, Matrices] = {name: name for name in FILE_TYPES}
DEMO = "demo"
USUAL = "demo,1b-q4_k,1b-q4_0,1b-q8_0,1b-q6_k,1b-iq4_xs,1b-mxfp4,1b-f16,moe-q4_k,minilm-f16,minilm-q8_0"


@dataclass(frozen=True)
class Subject:
    """A model of the table, as what it has to read and to multiply."""

    name: str
    path: Path
    header: Header

    @property
    def is_encoder(self) -> bool:
        return self.header.values.get(f"{self.header.text('general.architecture')}.attention.causal") is False

    @property
    def n_vocab(self) -> int:
        return self.header.arrays[TOKENS]

    def n_read(self, n_rows: int) -> float:
        """Bytes of weights that a step with `n_rows` texts reads: all matrices, of experts those that are visited."""
        return sum(tensor.n_bytes * self._visited(name, n_rows) for name, tensor in self._matrices.items())

    @property
    def n_products(self) -> float:
        """Products that a prompt's token takes in the layers' matrices. The output is the last token's alone."""
        return sum(
            math.prod(tensor.shape) * self._visited(name, 1)
            for name, tensor in self._matrices.items()
            if name.startswith("blk.")
        )

    @property
    def _matrices(self) -> dict[str, Tensor]:
        """What every token is multiplied with. Of a table of tokens rows are looked up, unless it is the output too."""
        found = {name: one for name, one in self.header.tensors.items() if len(one.shape) > 1}
        unused = ("token_embd.weight",) if "output.weight" in found or self.is_encoder else ()
        tables = (*unused, "position_embd.weight", "token_types.weight")
        return {name: one for name, one in found.items() if name not in tables}

    def _visited(self, name: str, n_rows: int) -> float:
        """The part of a matrix that `n_rows` tokens visit, where each chooses its experts as if by lot."""
        if not re.search(r"_exps\.", name):
            return 1.0
        architecture = self.header.text("general.architecture")
        n_experts = self.header.number(f"{architecture}.expert_count") or 1
        n_used = self.header.number(f"{architecture}.expert_used_count") or n_experts
        return 1.0 - (1.0 - n_used / n_experts) ** n_rows


def subject(name: str, folder: Path) -> Subject:
    """The model of that name, kept in `folder` once it is made; or the file of that path.

    Raises ValueError for a name that is none.
    """
    path = Path(name) if name.endswith(".gguf") else _made(name, folder)
    return Subject(path.stem if name.endswith(".gguf") else name, path, check_model(path, type_sizes(native())))


def _made(name: str, folder: Path) -> Path:
    if name == DEMO:
        return ensure_demo_model()
    shape, _, kind = name.partition("-")
    path = folder / f"{name}.gguf"
    if shape == ENCODER and kind in MATRICES:
        write = partial(write_encoder, encoder=load_encoder(), matrices=MATRICES[kind])
    elif shape in SHAPES and kind in FORMATS:
        write = partial(write_shaped, vocabulary=ensure_demo_model(), shape=SHAPES[shape], format_name=kind)
    else:
        raise ValueError(
            f"there is no model {name}: name {DEMO}, {ENCODER}-f32, -f16 or -q8_0, a file's path, or one of "
            f"{', '.join(SHAPES)} with one of {', '.join(FORMATS)} behind a dash"
        )
    if not path.exists():
        half = path.with_suffix(".part")
        write(half)
        half.replace(path)
    return path
