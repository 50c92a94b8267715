"""Reading the header of a GGUF file, with bounds: what is not plausible is refused before libllama sees it.

libllama aborts on, or allocates for, some absurd files. Nothing here allocates by a number in the file, and the whole
check costs less than a tenth of a second for a vocabulary of 50,000 tokens.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamabox.errors import ModelLoadError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_KEY = 65535  # the specification's
MAX_NAME = 64  # GGML_MAX_NAME
MAX_IMAGE_NAME = 256  # libstable-diffusion's is 128, but it shortens longer ones
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_SPLITS = 65535

SCALARS = {
    0: "B",  # uint8
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9

Scalar = int | float | bool | str

SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry. `shape` is in ggml's order, the length of a row first; `kind` a GGML_TYPE_*."""

    shape: tuple[int, ...]
    kind: int
    offset: int  # bytes, from the start of the data
    n_bytes: int


@dataclass(slots=True)
class Header:
    """What a file says of itself. `values` has the scalars and strings; `arrays` the length of each array.

    `kinds` tells the GGUF type of each of `values`: libllama aborts when it reads one as another type.
    """

    n_tensors: int
    values: dict[str, Scalar] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    entries_start: int = 0  # bytes, from the start of the file: the tensors' entries
    data_start: int = 0  # and their data

    @property
    def alignment(self) -> int:
        """Bytes to a multiple of which each tensor begins."""
        return self.number("general.alignment") or DEFAULT_ALIGNMENT

    def number(self, key: str) -> int | None:
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None


class Reader:
    """A cursor over the mapped file that raises ModelLoadError at the end of it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 0

    def fail(self, what: str) -> ModelLoadError:
        return ModelLoadError(f"{self.path} cannot be loaded: {what}")

    def skip(self, length: int) -> int:
        """Move on; returns where the skipped part begins."""
        start = self.at
        if length < 0 or length > self.size - start:
            raise self.fail(f"it ends in the middle of its header, at {self.size} bytes")
        self.at = start + length
        return start

    def scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize("<" + code)))[0]
        return value

    def integer(self, code: str) -> int:
        return int(self.scalar(code))

    def string(self, limit: int) -> str:
        length = self.integer("Q")
        if length > limit:
            raise self.fail(f"a string of {length} bytes near byte {self.at}, more than there can be")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8", "replace")


def read_header(path: Path, type_sizes: Mapping[int, tuple[int, int]], *, for_text: bool = True) -> Header:
    """Read and check one file. `type_sizes`: ggml type → (elements in a block, bytes of a block).

    Not `for_text`: of an image model, which need not say anything of itself and has longer names of tensors.

    Raises ModelLoadError with one line: not a file, empty, not GGUF, cut off, or with numbers that cannot be.
    """
    try:
        if not path.exists():
            raise ModelLoadError(f"{path} cannot be loaded: there is no such file")
        if not path.is_file():
            raise ModelLoadError(f"{path} cannot be loaded: it is not a regular file")
        if path.stat().st_size == 0:
            raise ModelLoadError(f"{path} cannot be loaded: it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse(Reader(path, data), type_sizes, for_text)
    except OSError as exc:
        raise ModelLoadError(f"{path} cannot be loaded: {exc.strerror or exc}") from exc


def parse(reader: Reader, type_sizes: Mapping[int, tuple[int, int]], for_text: bool = True) -> Header:
    if reader.size < 4 or reader.data[:4] != MAGIC:
        raise reader.fail("it is not a GGUF file (the first four bytes are not GGUF)")
    reader.skip(4)
    version = reader.integer("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        why = "for machines of the other byte order" if swapped else f"of GGUF version {version}; 2 and 3 are known"
        raise reader.fail(f"it is {why}")
    n_tensors, n_values = reader.integer("q"), reader.integer("q")
    # The least a tensor's entry takes is 33 bytes, a value's 13.
    if not 0 <= n_tensors <= reader.size // 33 or not 0 <= n_values <= reader.size // 13:
        raise reader.fail(
            f"it claims {n_tensors} tensors and {n_values} values, more than fit into {reader.size} bytes"
        )
    header = Header(n_tensors)
    for _ in range(n_values):
        read_value(reader, header)
    check_alignment(reader, header)
    if for_text:
        check_values(reader, header)
    header.entries_start = reader.at
    for _ in range(n_tensors):
        name, tensor = read_tensor(reader, type_sizes, MAX_NAME if for_text else MAX_IMAGE_NAME)
        if name in header.tensors:
            raise reader.fail(f"tensor {name!r} is there twice")
        header.tensors[name] = tensor
    check_extent(reader, header)
    return header


def read_value(reader: Reader, header: Header) -> None:
    key = reader.string(MAX_KEY)
    kind = header.kinds[key] = reader.integer("I")
    if kind in SCALARS:
        header.values[key] = reader.scalar(SCALARS[kind])
    elif kind == STRING:
        header.values[key] = reader.string(reader.size)
    elif kind == ARRAY:
        element, count = reader.integer("I"), reader.integer("Q")
        header.arrays[key] = count
        if element in SCALARS:
            reader.skip(count * struct.calcsize("<" + SCALARS[element]))
        elif element == STRING:
            skip_strings(reader, key, count)
        else:
            raise reader.fail(f"array {key!r} has elements of the unknown type {element}")
    else:
        raise reader.fail(f"value {key!r} has the unknown type {kind}")


def skip_strings(reader: Reader, key: str, count: int) -> None:
    if count > (reader.size - reader.at) // 8:
        raise reader.fail(f"array {key!r} claims {count} strings, more than the file holds")
    unpack, data, at, end = struct.Struct("<Q").unpack_from, reader.data, reader.at, reader.size - 8
    for _ in range(count):
        if at > end:
            break
        at += 8 + unpack(data, at)[0]
    reader.skip(at - reader.at)


def check_alignment(reader: Reader, header: Header) -> None:
    if "general.alignment" in header.values:
        alignment = header.number("general.alignment") or 0
        if alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise reader.fail(f"general.alignment is {header.values['general.alignment']!r}, not a power of two")


def check_values(reader: Reader, header: Header) -> None:
    """Numbers that libllama asserts on, or divides by."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        if header.number("split.no"):
            return  # a later part of a split model has no metadata of its own
        raise reader.fail("it does not name its architecture (general.architecture)")
    bounds = {
        "block_count": (1, MAX_LAYERS),
        "context_length": (1, 1 << 31),
        "embedding_length": (1, 1 << 24),
        "feed_forward_length": (0, 1 << 26),
        "attention.head_count": (0, 1 << 16),
        "attention.head_count_kv": (0, 1 << 16),
        "expert_count": (0, 1024),
        "vocab_size": (1, 1 << 26),
    }
    for name, (low, high) in bounds.items():
        value = header.values.get(f"{architecture}.{name}")
        if value is not None and (header.number(f"{architecture}.{name}") is None or not low <= value <= high):  # type: ignore[operator]
            raise reader.fail(f"{architecture}.{name} is {value!r}, not a number from {low} to {high}")


def read_tensor(reader: Reader, type_sizes: Mapping[int, tuple[int, int]], max_name: int) -> tuple[str, Tensor]:
    """One tensor's entry, and its name."""
    name = reader.string(max_name)
    n_dims = reader.integer("I")
    if not 1 <= n_dims <= 4:
        raise reader.fail(f"tensor {name!r} has {n_dims} dimensions; 1 to 4 are possible")
    shape = [reader.integer("q") for _ in range(n_dims)]
    kind, offset = reader.integer("I"), reader.integer("Q")
    if kind not in type_sizes:
        raise reader.fail(f"tensor {name!r} has type {kind}, which this build does not know")
    block, size = type_sizes[kind]
    n_elements = 1
    for length in shape:
        n_elements *= length
        if length <= 0 or n_elements > reader.size * 64:  # no type packs more than 64 elements into a byte
            raise reader.fail(f"tensor {name!r} has the impossible shape {shape}")
    if shape[0] % block:
        raise reader.fail(f"tensor {name!r} has rows of {shape[0]} elements, not a multiple of its block of {block}")
    return name, Tensor(tuple(shape), kind, offset, n_elements // block * size)


def check_extent(reader: Reader, header: Header) -> None:
    start = header.data_start = -(-reader.at // header.alignment) * header.alignment
    for name, tensor in header.tensors.items():
        end = start + tensor.offset + tensor.n_bytes
        if end > reader.size:
            raise reader.fail(f"it is cut off: tensor {name!r} needs {end} bytes of file, but there are {reader.size}")


def check_model(path: Path, type_sizes: Mapping[int, tuple[int, int]]) -> Header:
    """Check a model, with all its parts where it is split. Returns the first part's header, with all parts' tensors."""
    header = read_header(path, type_sizes)
    count = header.number("split.count") or 1
    if count <= 1:
        return header
    found = SPLIT_NAME.match(path.name)
    if count > MAX_SPLITS or not found or int(found["count"]) != count:
        raise ModelLoadError(
            f"{path} cannot be loaded: it is one of {count} parts, but is not named …-00001-of-{count:05d}.gguf"
        )
    if header.number("split.no"):
        first = f"{found['stem']}-00001-of-{count:05d}.gguf"
        raise ModelLoadError(f"{path} cannot be loaded: it is not the first of {count} parts; name {first}")
    for number in range(2, count + 1):
        part = read_header(path.with_name(f"{found['stem']}-{number:05d}-of-{count:05d}.gguf"), type_sizes)
        header.tensors |= part.tensors
    return header
