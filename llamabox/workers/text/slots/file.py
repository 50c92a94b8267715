"""A slot on disk: what was computed for a text, to go on from after a restart.

    magic "LLBXSLOT" | u32 version | u32 n_cells | u32 n_exact | u32 n_loras | u32 n_media | u64 n_native
    32 bytes digest of the model's files | 32 bytes digest of the settings | 32 bytes digest of the projector
    32 bytes checksum
    n_loras × (32 bytes digest of the adapter's file, f64 scale)
    n_media × (u32 first cell, u32 n_cells, u32 n_positions, u32 1 if it is causal, 32 bytes key)
    n_cells × int32 token, -1 for a cell of a media chunk | n_native bytes of libllama's state

Little endian. The projector's digest is 0 where there are no media: their keys name content under that projector. The
last chunk may have more cells than are there. The checksum is BLAKE2b over all that is not itself. libllama aborts the
process on a damaged state, so every byte is checked before it sees one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from llamabox.engine.kv.history import History, Span
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet, Media, lora_set
from llamabox.errors import InvalidRequest, ServerFault
from llamabox.workers.text.slots.fingerprint import SIZE, Keys

MAGIC = b"LLBXSLOT"
VERSION = 4
HEAD = struct.Struct("<8sIIIIIQ32s32s32s")
SCALED = struct.Struct("<32sd")
CHUNK = struct.Struct("<IIII32s")
MEDIA_CELL = -1
CHECKSUM = 32
BODY = HEAD.size + CHECKSUM
SETTINGS = (
    "RoPE and YaRN options, --override-kv, control vectors, -ctk, -ctv, -fa, --swa-full, --kv-unified, -np without it, "
    "the context's length where the model's RoPE depends on it, and the version of llama.cpp"
)


def write(path: Path, keys: Keys, state: SlotState, adapters: Sequence[bytes] = ()) -> int:
    """Write the file whole or not at all; returns its bytes. What has the name may only be a file, which is replaced.

    `adapters` are the digests of the LoRA adapters' files by id: the next server may number them otherwise. Raises
    InvalidRequest where the name is that of something else, ServerFault where the disk will not have it.
    """
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise InvalidRequest(f"Unable to save slot to {path.name}: it exists and is no file", field="filename")
    loras = b"".join(SCALED.pack(adapters[adapter_id], scale) for adapter_id, scale in state.cells.lora)
    cells = state.cells
    media = b"".join(_packed(span) for span in cells.spans)
    tokens = array("i", (max(key, MEDIA_CELL) for key in cells.key_array())).tobytes()
    sizes = (len(cells), state.n_exact, len(cells.lora), len(cells.spans), len(state.native))
    projector = bytes(SIZE) if cells.is_text else keys.projector
    head = HEAD.pack(MAGIC, VERSION, *sizes, keys.model, keys.settings, projector)
    parts = (loras, media, tokens, state.native)
    checksum = _checksum(head, *parts)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".slot-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines((head, checksum, *parts))
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ServerFault(f"cannot write the slot file {path.name}: {error.strerror}") from error
    return len(head) + len(checksum) + sum(map(len, parts))


def read(path: Path, keys: Callable[[], Keys], n_vocab: int, adapters: Sequence[bytes] = ()) -> tuple[SlotState, int]:
    """The state in a file, and the file's bytes. Raises InvalidRequest with what is wrong with it.

    `keys` is asked for a file that is whole; what it raises is passed on.
    """
    try:
        content = _read_file(path)
    except OSError as error:
        raise _unable(path, error.strerror or "it cannot be read") from error
    if len(content) < BODY or content[: len(MAGIC)] != MAGIC:
        raise _unable(path, "it is not a slot file of this server")
    _, version, n_cells, n_exact, n_loras, n_media, n_native, *digests = HEAD.unpack_from(content)
    if version != VERSION:
        raise _unable(path, f"it has version {version}, this server writes {VERSION}")
    ends = list(accumulate((SCALED.size * n_loras, CHUNK.size * n_media, 4 * n_cells, n_native), initial=BODY))
    if len(content) != ends[-1]:
        raise _unable(path, f"it has {len(content)} bytes and should have {ends[-1]}")
    loras, media, tokens, native = (content[start:stop] for start, stop in pairwise(ends))
    if _checksum(content[: HEAD.size], content[BODY:]) != content[HEAD.size : BODY]:
        raise _unable(path, "its checksum is wrong")
    _check_digests(path, digests, keys(), has_media=n_media > 0)
    lora = _lora_set(path, SCALED.iter_unpack(loras), adapters)
    cells = _cells(path, tokens.cast("i").tolist(), CHUNK.iter_unpack(media), lora, n_vocab)
    if n_exact > n_cells:
        raise _unable(path, "its numbers contradict each other")
    return SlotState(cells, n_exact, native), len(content)


def _check_digests(path: Path, digests: Sequence[bytes], own: Keys, *, has_media: bool) -> None:
    model, settings, projector = digests
    if model != own.model:
        raise _unable(path, "it was computed by another model: the files' content differs")
    if settings != own.settings:
        raise _unable(path, f"it was computed with other settings: {SETTINGS} must be the same")
    if has_media and projector != own.projector:
        raise _unable(path, "it holds images or sound of another projector: --mmproj and --image-* must be the same")


def _packed(span: Span) -> bytes:
    media = span.media
    assert len(media.key) == SIZE
    return CHUNK.pack(span.start, media.n_cells, media.n_positions, media.is_causal, media.key)


def _cells(
    path: Path, tokens: list[int], chunks: Iterable[tuple[int, int, int, int, bytes]], lora: LoraSet, n_vocab: int
) -> History:
    """The cells of a file. Raises InvalidRequest for chunks that do not fit them, and for no tokens of ours."""
    cells = History(lora=lora)
    is_text = np.ones(len(tokens), bool)
    for start, n_cells, n_positions, is_causal, key in chunks:
        if not (len(cells) <= start < len(tokens) and n_positions > 0 and n_cells > 0):
            raise _unable(path, "its numbers contradict each other")
        cells.extend(tokens[len(cells) : start])
        cells.add(Media(bytes(key), n_cells, n_positions, bool(is_causal)))
        is_text[start : len(cells)] = False
    cells.extend(tokens[len(cells) :])
    values = np.array(tokens)
    if not ((values[is_text] >= 0) & (values[is_text] < n_vocab)).all() or (values[~is_text] != MEDIA_CELL).any():
        raise _unable(path, "its tokens are not in the vocabulary")
    whole = History(lora=lora)
    whole.append_from(cells, 0, len(tokens))
    return whole


def _lora_set(path: Path, scaled: Iterable[tuple[bytes, float]], adapters: Sequence[bytes]) -> LoraSet:
    """The set by this server's ids. One that was given twice has two."""
    free = dict(enumerate(adapters))
    scales: dict[int, float] = {}
    for digest, scale in scaled:
        found = next((adapter_id for adapter_id, known in free.items() if known == digest), None)
        if found is None:
            raise _unable(path, "it was computed with a LoRA adapter that this server did not load")
        scales[found] = scale
        del free[found]
    return lora_set(scales)


def _read_file(path: Path) -> memoryview:
    """Neither follows a link nor waits for somebody to write into a pipe.

    The contents are copied nowhere: Python's lock would be held meanwhile, for which the engine's thread waits.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unable(path, "it is no file")
        # Anybody's file may be larger than memory; only ours is read.
        is_ours = os.pread(descriptor, len(MAGIC), 0) == MAGIC
        content = np.empty(status.st_size if is_ours else 0, np.uint8).data
        n_read = 0
        while n_bytes := file.readinto(content[n_read:]):
            n_read += n_bytes
        return content[:n_read]


def _checksum(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=CHECKSUM)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _unable(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Unable to restore slot from {path.name}: {reason}", field="filename")
