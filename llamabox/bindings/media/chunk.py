"""A chunk of a prompt that is a picture, a part of one, or a stretch of sound."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.media.metadata import n_pixels, shape

BYTES_A_PIXEL = 12
"""Of a prepared picture: three colours in float32."""

LEAST_BYTES_A_CELL = 4096
"""What a cell of sound is prepared as, about: eight frames of 128 mel bins in float32, or 640 samples."""


@runtime_checkable
class PictureData(Protocol):
    """Pixels in rows from the top, three bytes (red, green, blue) each."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def pixels(self) -> bytes: ...


@runtime_checkable
class SoundData(Protocol):
    """A recording of one channel, `rate` samples a second: float32, little endian."""

    @property
    def rate(self) -> int: ...

    @property
    def samples(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ChunkPositions:
    """Where the cells of a chunk stand under M-RoPE: in four sections (time, row, column and one more) each."""

    offsets: NDArray[np.int32]
    """Of a chunk that begins at position 0; shape (4, n_cells)."""

    moves: NDArray[np.int32]
    """1 where the position counts from the chunk's beginning, 0 where it is the same wherever that is."""

    def at(self, first: int) -> NDArray[np.int32]:
        """The positions of a chunk that begins at `first`; shape (4, n_cells)."""
        return self.offsets + np.int32(first) * self.moves


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """What a projector makes of a chunk, for the text model's input."""

    embeddings: NDArray[np.float32]
    """Shape (n_cells, n_embd)."""

    positions: ChunkPositions | None = None
    """None where the cells stand one behind the other."""


class MediaChunk(Owned):
    """What a projector encodes at once. Keeps its prepared pixels or samples until `close()`, which is idempotent.

    `key` names the content and all that the rows depend on: chunks with equal keys have equal rows. `shape` tells the
    sizes of what is encoded: pictures may be encoded together where it is equal. `n_bytes` is what the prepared content
    takes, about. Thread-safe.
    """

    def __init__(
        self, native: Native, handle: Any, *, content: bytes, index: int, is_causal: bool, uses_mrope: bool
    ) -> None:
        """`content` names what the chunk is made of, as `index`-th of the chunks of that. Takes `handle` over."""
        lib = native.lib
        super().__init__(handle, lib.mtmd_input_chunk_free, "media chunk")
        self.is_sound = bool(lib.mtmd_input_chunk_get_type(handle) == lib.MTMD_INPUT_CHUNK_TYPE_AUDIO)
        self.n_cells = int(lib.mtmd_input_chunk_get_n_tokens(handle))
        self.n_positions = int(lib.mtmd_input_chunk_get_n_pos(handle))
        self.is_causal = is_causal
        self.n_bytes = max(BYTES_A_PIXEL * n_pixels(native, handle), LEAST_BYTES_A_CELL * self.n_cells)
        self.shape = shape(native, handle)
        self.positions = _mrope_positions(native, handle, self.n_cells) if uses_mrope else None
        where = b"" if self.positions is None else self.positions.at(1).tobytes()
        numbers = repr((index, self.n_cells, self.n_positions, is_causal)).encode()
        self.key = hashlib.blake2b(content + numbers + where, digest_size=32).digest()


def _mrope_positions(native: Native, handle: Any, n_cells: int) -> ChunkPositions:
    """As libmtmd says it for pictures. Sound goes on in time, alike in all sections."""
    picture = native.lib.mtmd_input_chunk_get_tokens_image(handle)
    if picture == native.ffi.NULL:
        steps = np.arange(n_cells, dtype=np.int32)
        return ChunkPositions(np.stack((steps, steps, steps, steps)), np.ones((4, n_cells), np.int32))

    def sections(first: int, cell: int) -> tuple[int, int, int, int]:
        at = native.lib.mtmd_image_tokens_get_decoder_pos(picture, first, cell)
        return at.t, at.y, at.x, at.z

    time, bottom, right, _ = sections(0, n_cells - 1)
    if time == 0 and (bottom + 1) * (right + 1) == n_cells:
        return _grid(n_cells, right + 1)
    found = np.array([[sections(first, cell) for cell in range(n_cells)] for first in (0, 1)], np.int32)
    return ChunkPositions(found[0].T, (found[1] - found[0]).T)


def _grid(n_cells: int, n_columns: int) -> ChunkPositions:
    """Cells row by row at one time, as Qwen-VLs have them: thousands, which are not asked for one by one."""
    cells = np.arange(n_cells, dtype=np.int32)
    nothing, all_move = np.zeros_like(cells), np.ones_like(cells)
    return ChunkPositions(
        np.stack((nothing, cells // n_columns, cells % n_columns, nothing)),
        np.stack((all_move, all_move, all_move, nothing)),
    )
