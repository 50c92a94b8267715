"""The files that options name: a wrong name is told at once, not after the model took a minute."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from llamabox.errors import OptionsError
from llamabox.imaging.config import ImageConfig
from llamabox.options.table.images import FILES
from llamabox.wire.text_config import TextConfig


def named_files(text: TextConfig, images: ImageConfig | None) -> Iterator[tuple[str, str]]:
    """What each file is, and its path, of those that will be loaded."""
    yield "model", text.model
    yield from (("LoRA adapter", path) for path, _ in text.lora)
    yield from (("control vector", path) for path, _ in text.control_vectors)
    if text.model_draft is not None:
        yield "draft model", text.model_draft
    if text.lookup_cache_static is not None:
        yield "static lookup cache", text.lookup_cache_static
    if images is not None:
        named = ((what, getattr(images, name)) for name, what in FILES.items())
        yield from ((what, path) for what, path in named if path is not None)


def check_file(what: str, given: str) -> None:
    """Raises OptionsError for a file that cannot be opened."""
    try:
        kind = os.stat(given).st_mode
        if stat.S_ISDIR(kind):
            raise OptionsError(f"cannot read the {what} {given}: it is a folder, a file is needed")
        if not stat.S_ISREG(kind):  # a pipe would be waited for, and cannot be read twice
            raise OptionsError(f"cannot read the {what} {given}: it is a pipe or device, a file is needed")
        open(given, "rb").close()
    except OSError as error:
        raise OptionsError(f"cannot read the {what} {given}: {error.strerror}") from error
