"""Reading the header of a GGUF file, with bounds: what is not plausible is refused before libllama sees it.

libllama aborts on, or allocates for, some absurd files. Nothing here allocates by a number in the file, and the whole
check costs less than a tenth of a second for a vocabulary of 50,000 tokens.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from llamabox.bindings.files.header import Header, Tensor
from llamabox.bindings.files.kind import instead_of_gguf, instead_of_model
from llamabox.errors import ModelLoadError

__all__ = ["MAGIC", "STRING", "Header", "Tensor", "check_model", "read_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEY = 65535  # the specification's
MAX_NAME = 64  # GGML_MAX_NAME
MAX_IMAGE_NAME = 256  # libstable-diffusion's is 128, but it shortens longer ones
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_SPLITS = 65535
MAX_TEXT = 4 << 20  # bytes of a text that is kept; the longest chat templates have 60,000
PIECE = 1 << 18  # bytes that are read at once

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

TOKENS = "tokenizer.ggml.tokens"

SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


class Reader:
    """A cursor over a file that raises ModelLoadError at its end. Reads, in pieces, and does not map it: a file system
    may not let it be mapped, and --no-mmap means it."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.size = size
        self.at = 0
        self._file = file
        self._piece = b""
        self._start = 0  # of the piece, in the file

    def fail(self, what: str) -> ModelLoadError:
        return ModelLoadError(f"{self.path} cannot be loaded: {what}")

    def skip(self, length: int) -> int:
        """Move on; returns where the skipped part begins."""
        start = self.at
        if length < 0 or length > self.size - start:
            raise self.fail(f"it ends in the middle of its header, at {self.size} bytes")
        self.at = start + length
        return start

    def piece(self, length: int) -> tuple[bytes, int]:
        """Bytes from here on, at least `length` where the file has them, as a piece and an offset into it."""
        offset = self.at - self._start
        if not 0 <= offset <= len(self._piece) - length:
            self._file.seek(self.at)
            self._piece, self._start, offset = self._file.read(max(length, PIECE)), self.at, 0
        return self._piece, offset

    def take(self, length: int) -> bytes:
        """The next bytes."""
        start = self.skip(length)
        self.at = start
        piece, offset = self.piece(length)
        self.at += length
        found = piece[offset : offset + length]
        if len(found) < length:  # it is shorter by now
            raise self.fail(f"it ends in the middle of its header, at {start + len(found)} bytes")
        return found

    def scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def integer(self, code: str) -> int:
        return int(self.scalar(code))

    def string(self, limit: int) -> str:
        length = self.integer("Q")
        if length > limit:
            raise self.fail(f"a string of {length} bytes near byte {self.at}, more than there can be")
        return self.take(length).decode("utf-8", "replace")


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
        with path.open("rb") as file:
            return parse(Reader(path, file, os.fstat(file.fileno()).st_size), type_sizes, for_text)
    except OSError as exc:
        raise ModelLoadError(f"{path} cannot be loaded: {exc.strerror or exc}") from exc


def parse(reader: Reader, type_sizes: Mapping[int, tuple[int, int]], for_text: bool = True) -> Header:
    start, _ = reader.piece(32)
    if not start.startswith(MAGIC):
        raise reader.fail(instead_of_gguf(start[:32]))
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
        if (length := reader.integer("Q")) > reader.size:
            raise reader.fail(f"a string of {length} bytes near byte {reader.at}, more than there can be")
        if length > MAX_TEXT:
            reader.skip(length)  # too long for a text that is looked at: some files have a tokenizer's JSON
        else:
            header.values[key] = reader.take(length).decode("utf-8", "replace")
    elif kind == ARRAY:
        element, count = reader.integer("I"), reader.integer("Q")
        header.arrays[key] = count
        if element in SCALARS:
            reader.skip(count * struct.calcsize("<" + SCALARS[element]))
        elif element == STRING and key == TOKENS:
            check_tokens(reader, count)
        elif element == STRING:
            skip_strings(reader, key, count)
        else:
            raise reader.fail(f"array {key!r} has elements of the unknown type {element}")
    else:
        raise reader.fail(f"value {key!r} has the unknown type {kind}")


def skip_strings(reader: Reader, key: str, count: int) -> None:
    if count > (reader.size - reader.at) // 8:
        raise reader.fail(f"array {key!r} claims {count} strings, more than the file holds")
    unpack = struct.Struct("<Q").unpack_from
    while count:
        piece, offset = reader.piece(8)
        start, end = offset, len(piece) - 8
        while count and offset <= end:
            offset += 8 + unpack(piece, offset)[0]
            count -= 1
        reader.skip(max(offset - start, 8))


def check_tokens(reader: Reader, count: int) -> None:
    """libllama aborts where a token's text is there twice. It gives empty ones names of their own."""
    if count > (reader.size - reader.at) // 8:
        raise reader.fail(f"array {TOKENS!r} claims {count} strings, more than the file holds")
    seen: dict[bytes, int] = {}
    for index, token in enumerate(strings(reader, count)):
        if token and seen.setdefault(token, index) != index:
            shown = token.decode("utf-8", "replace")[:40]
            raise reader.fail(f"its tokens {seen[token]} and {index} are both {shown!r}")


def strings(reader: Reader, count: int) -> Iterator[bytes]:
    """The next `count` strings, which are cut out of a piece where it has them: vocabularies have 50,000 and more."""
    unpack = struct.Struct("<Q").unpack_from
    while count:
        piece, offset = reader.piece(8)
        start = offset
        while count and offset <= len(piece) - 8:
            end = offset + 8 + unpack(piece, offset)[0]
            if end > len(piece):
                break
            yield piece[offset + 8 : end]
            offset, count = end, count - 1
        if offset > start:
            reader.skip(offset - start)
        else:  # it reaches beyond the piece
            yield reader.take(reader.integer("Q"))
            count -= 1


def check_alignment(reader: Reader, header: Header) -> None:
    if "general.alignment" in header.values:
        alignment = header.number("general.alignment") or 0
        if alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise reader.fail(f"general.alignment is {header.values['general.alignment']!r}, not a power of two")


def check_values(reader: Reader, header: Header) -> None:
    """Numbers that libllama asserts on, or divides by."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        return  # a later part of a split model has no metadata of its own
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
    if (what := instead_of_model(header)) is not None:
        raise ModelLoadError(f"{path} cannot be loaded: {what}")
    if header.text("general.architecture") is None and not header.number("split.no"):
        raise ModelLoadError(f"{path} cannot be loaded: it does not name its architecture (general.architecture)")
    count = header.number("split.count") or 1
    if count <= 1:
        header.files = (path,)
        return header
    found = SPLIT_NAME.match(path.name)
    if count > MAX_SPLITS or not found or int(found["count"]) != count:
        raise ModelLoadError(
            f"{path} cannot be loaded: it is one of {count} parts, but is not named …-00001-of-{count:05d}.gguf"
        )
    if header.number("split.no"):
        first = f"{found['stem']}-00001-of-{count:05d}.gguf"
        raise ModelLoadError(f"{path} cannot be loaded: it is not the first of {count} parts; name {first}")
    others = [path.with_name(f"{found['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(2, count + 1)]
    for other in others:
        header.tensors |= read_header(other, type_sizes).tensors
    header.files = (path, *others)
    return header
