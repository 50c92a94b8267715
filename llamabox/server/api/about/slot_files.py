"""POST /slots/{id}?action=save|restore|erase, with `--slots` and `--slot-save-path`."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamabox.checks import wrong
from llamabox.errors import InvalidRequest
from llamabox.server.hosted.exchange import Exchange
from llamabox.server.http.json import JsonResponse
from llamabox.wire.questions import EraseSlot, RestoreSlot, SaveSlot

MAX_NAME = 255
FORBIDDEN = frozenset('/\\:*?"<>|')
LOOK_ALIKES = frozenset("\uff0e\u2044\u2215\u2216\u29f5\u29f8\u29f9\ufffd\ufeff")
"""The wide full stop, slashes without a plain form that may be taken for real ones, and the marks of broken text."""


async def slot_action(exchange: Exchange) -> Response:
    """Waits until the slot is idle, then saves, restores or erases it (docs/api.md, Slot files)."""
    config = exchange.hosted.config
    assert config.slot_save_path is not None
    request = Request(exchange.scope)
    id_slot = _slot_id(request.path_params["id_slot"], exchange.info.n_slots)
    action = request.query_params.get("action", "")
    if action not in ("save", "restore", "erase"):
        raise InvalidRequest("Invalid action: it is save, restore or erase", field="action")
    client = exchange.hosted.client
    if action == "erase":
        erasure = await client.ask(EraseSlot(id_slot))
        return JsonResponse({"id_slot": id_slot, "n_erased": erasure.n_tokens})
    filename = exchange.body.get("filename")
    path = str(slot_path(Path(config.slot_save_path), filename))
    value: dict[str, Any] = {"id_slot": id_slot, "filename": filename}
    if action == "save":
        file = await client.ask(SaveSlot(id_slot, path))
        value |= {"n_saved": file.n_tokens, "n_written": file.n_bytes}
    else:
        file = await client.ask(RestoreSlot(id_slot, path))
        value |= {"n_restored": file.n_tokens, "n_read": file.n_bytes}
    return JsonResponse(value | {"timings": {f"{action}_ms": file.ms}})


def slot_path(folder: Path, filename: object) -> Path:
    """The file in `folder`; InvalidRequest for a name that is none or that leads out of the folder."""
    if not isinstance(filename, str):
        raise wrong("filename", "must be provided as a string")
    if not is_filename(filename):
        raise InvalidRequest("Invalid filename: a plain name without separators is needed", field="filename")
    path = folder / filename
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), filename):
        raise InvalidRequest("Invalid filename: it is a link", field="filename")
    return path


def is_filename(name: str) -> bool:
    """Whether a name is plain (docs/api.md, Slot files), also once its wide letters are usual ones: U+FF0F is a slash.

    A name does not begin with a full stop: hidden files are other programs', or ours that are still being written.
    """
    try:
        n_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 1 <= n_bytes <= MAX_NAME and _is_plain(name) and _is_plain(unicodedata.normalize("NFKC", name))


def _is_plain(name: str) -> bool:
    return (
        name == name.strip(" ")
        and not name.startswith(".")
        and not name.endswith(".")
        and ".." not in name
        and not FORBIDDEN & set(name)
        and not LOOK_ALIKES & set(name)
        and not any(unicodedata.category(character) == "Cc" for character in name)
    )


def _slot_id(text: str, n_slots: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) < n_slots and len(text) < 9):
        raise InvalidRequest(f"Invalid slot ID: it is from 0 to {n_slots - 1}", field="id_slot")
    return int(text)
