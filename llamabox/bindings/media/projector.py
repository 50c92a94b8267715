"""A projector (mmproj): what makes rows of a text model's input out of pictures and sounds."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.backend import device_handle
from llamabox.bindings.context import FlashAttention
from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.files.projector import check_projector, why_not_loaded
from llamabox.bindings.media.chunk import ChunkRows, MediaChunk, PictureData, SoundData
from llamabox.bindings.media.limits import MAX_RATIO, check_picture, sound_samples
from llamabox.bindings.media.metadata import n_pixels
from llamabox.bindings.model import Model
from llamabox.bindings.vocab import encode
from llamabox.errors import EncodeError, InvalidRequest, ModelLoadError

Part = str | int | PictureData | SoundData
"""Of a prompt: a text, a token's id, or media."""

Piece = tuple[int, ...] | MediaChunk

LARGE = 8192
"""Pixels of the longer side of pictures by which the largest chunk is found."""

N_RATIOS, N_RATIOS_EXACTLY = 12, 500
"""Of their sides. What is computed at once must be known to the cell; and some projectors take their time for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorParams:
    """How to load a projector. The defaults mean "as the file says"."""

    n_threads: int = 1
    offload: bool = True  # to a GPU, where there is one
    device: str | None = None  # its ggml name; None: the first one
    flash_attn: FlashAttention = FlashAttention.AUTO
    image_min_tokens: int = -1  # of pictures whose tokens depend on their size
    image_max_tokens: int = -1
    batch_tokens: int = 1024  # of the pictures that are encoded together; one alone may have more
    warmup: bool = True


class Projector(Owned):
    """A libmtmd context for one model. Close it before the model, and after the chunks that it made.

    `tokenize` and the properties are for any thread; `encode` runs one call at a time, beside decodes.
    """

    def __init__(self, model: Model, path: str | Path, params: ProjectorParams) -> None:
        """Raises ModelLoadError with one line that says what is wrong with the file, or where it does not fit."""
        self.native = model.native
        self.path = Path(path)
        self._vocab = model.vocab
        check_projector(self.path, model)
        if not self.native.has("mtmd_tokenize_from_parts"):
            raise ModelLoadError(
                f"{path}: this build's llama.cpp is too old for pictures and sound (libmtmd has no "
                "mtmd_tokenize_from_parts): build a newer one with build_native.py"
            )
        lib = self.native.lib
        lib.lb_log_forget_error()
        handle = lib.mtmd_init_from_file(os.fsencode(path), model.handle, c_params(self.native, params))
        if handle == self.native.ffi.NULL:
            raise ModelLoadError(f"{path} cannot be loaded: {why_not_loaded(self.native.first_error())}")
        super().__init__(handle, lib.mtmd_free, "projector")
        self._encoding = threading.Lock()
        self.n_embd = int(lib.llama_model_n_embd_inp(model.handle))
        self.has_vision = bool(lib.mtmd_support_vision(handle))
        self.has_audio = bool(lib.mtmd_support_audio(handle))
        self.audio_rate = int(lib.mtmd_get_audio_sample_rate(handle)) if self.has_audio else 0
        self.uses_mrope = bool(lib.mtmd_decode_use_mrope(handle))
        with self.path.open("rb") as file:
            self.digest = hashlib.file_digest(file, "blake2b")
        self.digest.update(repr((params.image_min_tokens, params.image_max_tokens)).encode())

    @property
    def largest_picture(self) -> int:
        """Cells of the largest chunk of a picture, found by pictures of many shapes; 0 without vision."""
        return self._largest[0]

    @property
    def most_pixels(self) -> int:
        """The most pixels that a picture is made into before it is encoded; 0 where that is not known."""
        return self._largest[1]

    @cached_property
    def _largest(self) -> tuple[int, int]:
        """Cells of the largest chunk, and pixels of the largest picture."""
        if not self.has_vision:
            return 0, 0
        lib = self.native.lib
        n_ratios = N_RATIOS if self.is_causal else N_RATIOS_EXACTLY
        sides = [round(LARGE * ratio) for ratio in np.geomspace(1, 1 / MAX_RATIO, n_ratios).tolist()]
        most_cells = most_pixels = 0
        for width, height in [(LARGE, side) for side in sides] + [(side, LARGE) for side in sides]:
            bitmap = lib.mtmd_bitmap_init(width, height, self.native.ffi.NULL)
            lib.mtmd_bitmap_set_id(bitmap, b"0")
            try:
                chunks = self._split([bitmap])
            except InvalidRequest:  # the projector does not take this shape
                continue
            finally:
                lib.mtmd_bitmap_free(bitmap)
            try:
                found = [lib.mtmd_input_chunks_get(chunks, i) for i in range(lib.mtmd_input_chunks_size(chunks))]
                media = [chunk for chunk in found if self._is_media(chunk)]
                most_cells = max(most_cells, *(lib.mtmd_input_chunk_get_n_tokens(chunk) for chunk in media))
                most_pixels = max(most_pixels, sum(n_pixels(self.native, chunk) for chunk in media))
            finally:
                lib.mtmd_input_chunks_free(chunks)
        return most_cells, most_pixels

    @property
    def is_causal(self) -> bool:
        """Whether the cells of a picture attend only to those before them."""
        return not self.native.lib.mtmd_decode_use_non_causal(self.handle, self.native.ffi.NULL)

    def tokenize(self, parts: Sequence[Part], *, add_special: bool, counts_only: bool = False) -> list[Piece]:
        """The tokens of the parts, and a chunk or several for each picture or sound, in order.

        The model's own marks around media are among the tokens. With `counts_only` the chunks have no content: they
        tell their cells and positions, and cannot be encoded. The caller closes the chunks.

        Raises InvalidRequest for what the model cannot see or hear, and for text or ids that are none.
        """
        pieces: list[Piece] = []
        try:
            for is_id, run in groupby(parts, lambda part: isinstance(part, int)):
                if is_id:
                    ids = [self._vocab.check(part) for part in run if isinstance(part, int)]
                    _extend(pieces, tuple(ids))
                else:
                    for piece in self._pieces([part for part in run if not isinstance(part, int)], counts_only):
                        if isinstance(piece, MediaChunk):
                            pieces.append(piece)
                        else:
                            _extend(pieces, piece)
        except BaseException:
            for piece in pieces:
                if isinstance(piece, MediaChunk):
                    piece.close()
            raise
        return self._with_special(pieces) if add_special and not isinstance(parts[0], int) else pieces

    def encode(self, chunks: Sequence[MediaChunk]) -> list[ChunkRows]:
        """The rows of each chunk. Those of pictures of one size are computed together where the projector can.

        Takes from milliseconds to minutes. Raises EncodeError.
        """
        with self._encoding:
            found: list[ChunkRows] = []
            while len(found) < len(chunks):
                found += self._encode_some(chunks[len(found) :])
            return found

    def _encode_some(self, chunks: Sequence[MediaChunk]) -> list[ChunkRows]:
        """The rows of the first chunks: of as many as go together."""
        lib = self.native.lib
        batch = lib.mtmd_batch_init(self.handle)
        try:
            n_added = 0
            for chunk in chunks:
                if chunk.shape != chunks[0].shape or lib.mtmd_batch_add_chunk(batch, chunk.handle) != 0:
                    break
                n_added += 1
            if n_added == 0 or lib.mtmd_batch_encode(batch) != 0:
                raise EncodeError(f"encoding {'a sound' if chunks[0].is_sound else 'an image'} failed")
            return [
                ChunkRows(self._rows(lib.mtmd_batch_get_output_embd(batch, chunk.handle), chunk), chunk.positions)
                for chunk in chunks[:n_added]
            ]
        finally:
            lib.mtmd_batch_free(batch)

    def _rows(self, pointer: Any, chunk: MediaChunk) -> NDArray[np.float32]:
        """A copy of libmtmd's rows."""
        if pointer == self.native.ffi.NULL:
            raise EncodeError("libmtmd encoded a chunk and has no rows of it")
        buffer = self.native.ffi.buffer(pointer, 4 * chunk.n_cells * self.n_embd)
        return np.frombuffer(buffer, np.float32).reshape(chunk.n_cells, self.n_embd).copy()

    def _pieces(self, parts: Sequence[str | PictureData | SoundData], counts_only: bool) -> Iterator[Piece]:
        """The pieces of parts none of which is a token's id."""
        contents = [self._content(part) for part in parts if not isinstance(part, str)]
        lib = self.native.lib
        made: list[Any] = []
        try:
            c_parts: list[Any] = []
            for part in parts:
                if isinstance(part, str):
                    c_parts.append(encode(part))
                else:
                    made.append(self._bitmap(part, len(made), counts_only))
                    c_parts.append(made[-1])
            chunks = self._split(c_parts)
        finally:
            for bitmap in made:
                lib.mtmd_bitmap_free(bitmap)
        try:
            yield from self._taken(chunks, contents)
        finally:
            lib.mtmd_input_chunks_free(chunks)

    def _taken(self, chunks: Any, contents: list[bytes]) -> Iterator[Piece]:
        """Copies of libmtmd's chunks. Their ids are the numbers of the media that they are of."""
        lib, ffi = self.native.lib, self.native.ffi
        n_seen = dict.fromkeys(range(len(contents)), 0)
        for i in range(lib.mtmd_input_chunks_size(chunks)):
            chunk = lib.mtmd_input_chunks_get(chunks, i)
            if not self._is_media(chunk):
                n_tokens = ffi.new("size_t *")
                tokens = lib.mtmd_input_chunk_get_tokens_text(chunk, n_tokens)
                yield tuple(ffi.unpack(tokens, n_tokens[0]))
                continue
            number = int(self.native.text(lib.mtmd_input_chunk_get_id(chunk)) or 0)
            is_causal = not lib.mtmd_decode_use_non_causal(self.handle, chunk)
            copy = lib.mtmd_input_chunk_copy(chunk)
            yield MediaChunk(
                self.native,
                copy,
                content=contents[number],
                index=n_seen[number],
                is_causal=is_causal,
                uses_mrope=self.uses_mrope,
            )
            n_seen[number] += 1

    def _split(self, parts: Sequence[Any]) -> Any:
        """libmtmd's chunks of parts, each the bytes of a text or a bitmap."""
        lib, ffi = self.native.lib, self.native.ffi
        alive: list[Any] = []  # what the C structs point at
        c_parts = ffi.new("mtmd_input_part *[]", len(parts))
        for i, part in enumerate(parts):
            c_part = ffi.new("mtmd_input_part *")
            if isinstance(part, bytes):
                data = ffi.from_buffer(part)
                text = ffi.new("mtmd_input_text *")
                text.text, text.text_len, text.parse_special = ffi.cast("char *", data), len(part), True
                c_part.text = text
                alive += [data, text]
            else:
                c_part.bitmap = part
            alive.append(c_part)
            c_parts[i] = c_part
        chunks = lib.mtmd_input_chunks_init()
        if lib.mtmd_tokenize_from_parts(self.handle, chunks, c_parts, len(parts), False) != 0:
            lib.mtmd_input_chunks_free(chunks)
            raise InvalidRequest(
                "Field 'prompt': an image or sound could not be prepared for the model", field="prompt"
            )
        return chunks

    def _bitmap(self, part: PictureData | SoundData, number: int, counts_only: bool) -> Any:
        """libmtmd's bitmap of a picture or sound, its number as its id; with `counts_only` without its content."""
        lib, ffi = self.native.lib, self.native.ffi
        if isinstance(part, PictureData):
            data = ffi.NULL if counts_only else ffi.from_buffer("unsigned char[]", part.pixels)
            bitmap = lib.mtmd_bitmap_init(part.width, part.height, data)
        else:
            samples = sound_samples(part, self.audio_rate)
            data = ffi.NULL if counts_only else ffi.from_buffer("float[]", samples)
            bitmap = lib.mtmd_bitmap_init_from_audio(len(samples), data)
        lib.mtmd_bitmap_set_id(bitmap, str(number).encode())
        return bitmap

    def _content(self, part: PictureData | SoundData) -> bytes:
        """A digest of the part and the projector. Raises InvalidRequest for a part that it does not take."""
        digest = self.digest.copy()
        if isinstance(part, PictureData):
            if not self.has_vision:
                raise InvalidRequest("Field 'prompt': this model takes no images", field="prompt")
            check_picture(part)
            digest.update(repr(("picture", part.width, part.height)).encode())
            digest.update(part.pixels)
        else:
            if not self.has_audio:
                raise InvalidRequest("Field 'prompt': this model takes no sound", field="prompt")
            digest.update(b"sound")
            digest.update(sound_samples(part, self.audio_rate).data)
        return digest.digest()

    def _is_media(self, chunk: Any) -> bool:
        lib = self.native.lib
        return bool(lib.mtmd_input_chunk_get_type(chunk) != lib.MTMD_INPUT_CHUNK_TYPE_TEXT)

    def _with_special(self, pieces: list[Piece]) -> list[Piece]:
        """With BOS and EOS where the model wants them."""
        vocab = self._vocab
        found: list[Piece] = [(vocab.bos,)] if vocab.add_bos and vocab.bos is not None else []
        for piece in pieces:
            if isinstance(piece, MediaChunk):
                found.append(piece)
            else:
                _extend(found, piece)
        if vocab.add_eos and vocab.eos is not None:
            _extend(found, (vocab.eos,))
        return found


def _extend(pieces: list[Piece], tokens: tuple[int, ...]) -> None:
    """Add tokens: to the last piece, if it has tokens too."""
    if pieces and isinstance(pieces[-1], tuple):
        pieces[-1] += tokens
    elif tokens:
        pieces.append(tokens)


def c_params(native: Native, params: ProjectorParams) -> Any:
    """The C struct."""
    lib = native.lib
    c = lib.mtmd_context_params_default()
    c.use_gpu = params.offload
    if params.device is not None:
        c.device = device_handle(native, params.device)
    c.print_timings = False
    c.n_threads = params.n_threads
    flash = {FlashAttention.AUTO: "AUTO", FlashAttention.ON: "ENABLED", FlashAttention.OFF: "DISABLED"}
    c.flash_attn_type = getattr(lib, f"LLAMA_FLASH_ATTN_TYPE_{flash[params.flash_attn]}")
    c.warmup = params.warmup
    c.image_min_tokens, c.image_max_tokens = params.image_min_tokens, params.image_max_tokens
    c.batch_max_tokens = params.batch_tokens
    return c
