"""The header of a GGUF file, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_ALIGNMENT = 32

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry. `shape` is in ggml's order, the length of a row first; `kind` a GGML_TYPE_*."""

    shape: tuple[int, ...]
    kind: int
    offset: int  # bytes, from the start of the data
    n_bytes: int


@dataclass(slots=True)
class Header:
    """The metadata and tensors of a file. `values` has the scalars and strings; `arrays` the length of each array.

    `kinds` tells the GGUF type of each of `values`: libllama aborts when it reads one as another type.
    """

    n_tensors: int
    values: dict[str, Scalar] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    entries_start: int = 0  # bytes, from the start of the file: the tensors' entries
    data_start: int = 0  # and their data
    files: tuple[Path, ...] = ()  # of a checked model: its file, or those of all its parts

    @property
    def alignment(self) -> int:
        """Bytes; each tensor begins at a multiple of them."""
        return self.number("general.alignment") or DEFAULT_ALIGNMENT

    def number(self, key: str) -> int | None:
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None
