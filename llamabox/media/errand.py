"""One file on its way to a child and back."""

from __future__ import annotations

import dataclasses
import signal
import threading
from concurrent.futures import CancelledError
from typing import Any

from llamabox.engine.request import Picture, Sound
from llamabox.errors import ServerFault
from llamabox.media.decoding.link import Unreadable, Wanted
from llamabox.quarantine.lane import Lane
from llamabox.quarantine.lines import pack, unpack
from llamabox.quarantine.trial import Cause, Death, Trial

File = bytes | bytearray | str
"""A file's bytes, or the text that they are written in."""


class Errand:
    """Has a child decode one file. `run` blocks a thread; `abort` may be called from any other, whenever."""

    def __init__(self, wanted: Wanted, file: File) -> None:
        self.killed_its_child = False
        self._wanted = wanted
        self._file = file
        self._lock = threading.Lock()
        self._child: Trial | None = None  # while it works on this file
        self._is_aborted = False

    def run(self, lane: Lane) -> Picture | Sound:
        """The decoded file. Raises Unreadable; ServerFault where no child can be had."""
        is_text = isinstance(self._file, str)
        wanted = dataclasses.replace(self._wanted, is_text=is_text)
        data = self._file.encode("ascii", "replace") if isinstance(self._file, str) else self._file
        question = (pack(dataclasses.asdict(wanted)), data)
        answer = self._asked(lane, question)
        if isinstance(answer, Death) and self._was_ended(answer):
            answer = self._asked(lane, question)
        if isinstance(answer, Death):
            self.killed_its_child = True
            raise Unreadable(f"cannot be decoded: {answer}")
        return self._read(answer)

    def abort(self) -> None:
        """Have it fail soon, if it has not come back."""
        with self._lock:
            self._is_aborted = True
            if self._child is not None:
                self.killed_its_child = True
                self._child.abort()

    def _asked(self, lane: Lane, question: tuple[bytes, bytes | bytearray]) -> bytearray | Death:
        with lane.child() as child:
            if isinstance(death := child.start(), Death):
                raise ServerFault(f"media cannot be decoded here: a process for it does not start ({death})")
            self._begin(child)
            try:
                return child.ask(*question)
            finally:
                self._end()

    def _was_ended(self, death: Death) -> bool:
        """Whether somebody else ended the child: a user, or a system that is short of memory."""
        return death.cause is Cause.CRASH and death.status == -signal.SIGKILL and not self._is_aborted

    def _begin(self, child: Trial) -> None:
        with self._lock:
            if self._is_aborted:
                raise CancelledError
            self._child = child

    def _end(self) -> None:
        """From here on the child may work for somebody else."""
        with self._lock:
            self._child = None

    def _read(self, answer: bytearray) -> Picture | Sound:
        """What a child says is checked: it may have been taken over."""
        try:
            head, content = unpack(answer)
            if "error" in head:
                raise Unreadable(str(head["error"]))
            return self._sound(content) if head["kind"] == "audio" else self._picture(head, content)
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable("cannot be decoded") from error

    def _picture(self, head: dict[str, Any], pixels: bytearray) -> Picture:
        width, height = int(head["width"]), int(head["height"])
        n_channels = 1 if self._wanted.as_mask else 3
        if min(width, height) < 1 or len(pixels) != width * height * n_channels:
            raise ValueError("pixels of another size")
        return Picture(width, height, bytes(pixels))

    def _sound(self, samples: bytearray) -> Sound:
        if not samples or len(samples) % 4:
            raise ValueError("no samples")
        return Sound(self._wanted.rate, bytes(samples))
