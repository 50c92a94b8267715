"""The process that decodes media, which llamabox.quarantine runs.

A picture or a recording is the work of strangers, and its decoder is C that reads it. In here the kernel bounds time
and memory and keeps every door shut; a decoder that crashes or is taken over costs one file.

A question is a line of JSON (link.py's Wanted) and the file behind it. An answer is a line of JSON and the pixels or
samples behind it, or `{"error": …}` alone:

    {"kind": "image", "width", "height"}   pixels
    {"kind": "audio", "rate"}              samples
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from llamabox.media.decoding.encoded import file_of
from llamabox.media.decoding.link import MEMORY, NOUNS, Unreadable, Wanted, readable
from llamabox.media.decoding.signatures import format_of, other
from llamabox.quarantine import inside
from llamabox.quarantine.lines import pack, unpack

PictureDecoder = Callable[[bytes, str, Wanted], tuple[int, int, bytes]]
SoundDecoder = Callable[[bytes, str, Wanted], bytes]


class Desk:
    """Answers questions. Its modules are loaded when it is made, and none later."""

    def __init__(self) -> None:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread would take of the address space
        from llamabox.media.decoding import pictures, sounds

        warnings.simplefilter("ignore")  # of Pillow's, about files that are odd but good enough
        pictures.prepare()
        self._picture: PictureDecoder = pictures.decode
        self._sound: SoundDecoder = sounds.decode
        _silence_libraries()

    def answer(self, question: bytearray) -> bytes:
        try:
            call, sent = unpack(question)
            wanted = Wanted.of(call)
            head, content = self._decoded(file_of(sent) if wanted.is_text else bytes(sent), wanted)
            return pack(head) + content
        except Unreadable as error:
            return pack({"error": str(error)})
        except MemoryError:
            return pack({"error": f"needs more than {MEMORY >> 20} MiB of memory to be decoded"})

    def _decoded(self, data: bytes, wanted: Wanted) -> tuple[dict[str, Any], bytes]:
        name, kind = format_of(data) or (None, None)
        if name is None or kind is None:
            what = other(data)
            raise Unreadable(f"is {what}, not {readable(wanted.kinds)}" if what else f"is not {readable(wanted.kinds)}")
        if kind not in wanted.kinds:
            raise Unreadable(f"is {NOUNS[kind]} ({name}), not {readable(wanted.kinds)}")
        if kind == "audio":
            return {"kind": kind, "rate": wanted.rate}, self._sound(data, name, wanted)
        width, height, pixels = self._picture(data, name, wanted)
        return {"kind": kind, "width": width, "height": height}, pixels


def _silence_libraries() -> None:
    """Have nothing that C writes reach the server's log: libmpg123 has a line for each damaged frame of a file.

    Python's own errors still do.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


if __name__ == "__main__":
    inside.serve(sys.argv[1:], lambda: Desk().answer)
