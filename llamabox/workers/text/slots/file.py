"""A slot on disk: what was computed for a text, to go on from after a restart.

    magic "LLBXSLOT" | u32 version | u32 n_tokens | u32 n_exact | u32 n_loras | u64 n_native
    32 bytes digest of the model's files | 32 bytes digest of the settings | 32 bytes checksum
    n_loras × (32 bytes digest of the adapter's file, f64 scale) | n_tokens × int32 token | n_native bytes of libllama's
    state

Little endian. The checksum is BLAKE2b over all that is not itself. libllama aborts the process on a damaged state, so
every byte is checked before it sees one.
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
from pathlib import Path

from llamabox.engine.kv.history import History
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet, lora_set
from llamabox.errors import InvalidRequest, ServerFault
from llamabox.workers.text.slots.fingerprint import Keys

MAGIC = b"LLBXSLOT"
VERSION = 3
HEAD = struct.Struct("<8sIIIIQ32s32s")
SCALED = struct.Struct("<32sd")
CHECKSUM = 32
SETTINGS = (
    "RoPE and YaRN options, --override-kv, control vectors, -ctk, -ctv, -fa, --swa-full, --kv-unified, -np without it, "
    "the context's length where the model's RoPE depends on it, and the version of llama.cpp"
)


def write(path: Path, keys: Keys, state: SlotState, adapters: Sequence[bytes] = ()) -> int:
    """Write the file whole or not at all; returns its bytes. What has the name may only be a file, which is replaced.

    `adapters` are the digests of the LoRA adapters' files by id: the next server may number them otherwise. Raises
    InvalidRequest where the name is that of something else, ServerFault where the disk will not have it.

    A state with media is refused, InvalidRequest: its cells depend on the projector as well, which the file does not
    name, so that a server with another one would take them for its own.
    """
    if not state.cells.is_text:
        raise InvalidRequest(
            "Unable to save slot: it holds images or sound, which slot files do not carry; send them again instead"
        )
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise InvalidRequest(f"Unable to save slot to {path.name}: it exists and is no file", field="filename")
    loras = b"".join(SCALED.pack(adapters[adapter_id], scale) for adapter_id, scale in state.cells.lora)
    tokens = array("i", state.cells.key_array()).tobytes()
    sizes = (len(state.cells), state.n_exact, len(state.cells.lora), len(state.native))
    head = HEAD.pack(MAGIC, VERSION, *sizes, keys.model, keys.settings)
    checksum = _checksum(head, loras, tokens, state.native)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".slot-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines((head, checksum, loras, tokens, state.native))
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ServerFault(f"cannot write the slot file {path.name}: {error.strerror}") from error
    return len(head) + len(checksum) + len(loras) + len(tokens) + len(state.native)


def read(path: Path, keys: Callable[[], Keys], n_vocab: int, adapters: Sequence[bytes] = ()) -> tuple[SlotState, int]:
    """The state in a file, and the file's bytes. Raises InvalidRequest with what is wrong with it.

    `keys` is asked for a file that is whole; what it raises is passed on.
    """
    try:
        content = _read_file(path)
    except OSError as error:
        raise _unable(path, error.strerror or "it cannot be read") from error
    if len(content) < HEAD.size + CHECKSUM or not content.startswith(MAGIC):
        raise _unable(path, "it is not a slot file of this server")
    _, version, n_tokens, n_exact, n_loras, n_native, model, settings = HEAD.unpack_from(content)
    if version != VERSION:
        raise _unable(path, f"it has version {version}, this server writes {VERSION}")
    loras = HEAD.size + CHECKSUM
    start = loras + SCALED.size * n_loras
    middle = start + 4 * n_tokens
    if len(content) != middle + n_native:
        raise _unable(path, f"it has {len(content)} bytes and should have {middle + n_native}")
    view = memoryview(content)
    if _checksum(view[: HEAD.size], view[loras:start], view[start:middle], view[middle:]) != content[HEAD.size : loras]:
        raise _unable(path, "its checksum is wrong")
    own = keys()
    if model != own.model:
        raise _unable(path, "it was computed by another model: the files' content differs")
    if settings != own.settings:
        raise _unable(path, f"it was computed with other settings: {SETTINGS} must be the same")
    tokens = array("i")
    tokens.frombytes(view[start:middle])
    if n_exact > n_tokens or any(not 0 <= token < n_vocab for token in tokens):
        raise _unable(path, "its tokens are not in the vocabulary")
    scaled = SCALED.iter_unpack(view[loras:start])
    cells = History(tokens, _lora_set(path, scaled, adapters))
    return SlotState(cells, n_exact, bytes(view[middle:])), len(content)


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


def _read_file(path: Path) -> bytes:
    """Neither follows a link nor waits for somebody to write into a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _unable(path, "it is no file")
        head = file.read(len(MAGIC))  # anybody's file may be larger than memory; only ours is read
        return head + file.read() if head == MAGIC else head


def _checksum(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=CHECKSUM)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _unable(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Unable to restore slot from {path.name}: {reason}", field="filename")
