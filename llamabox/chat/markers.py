"""Media on their way through a template: each is a marker in its message's text, and the prompt is cut there.

Templates have ways of their own to show a picture (`<|image_pad|>`, `<start_of_image>`). libmtmd writes these itself
around the rows of each picture, so a template must see nothing but text where one stands. A marker holds 128 random
bits that are drawn when the request has come, so no text of a client's can be one.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from llamabox.checks import describe, wrong
from llamabox.media.source import MAX_SOURCES, ONE_TOO_MANY, MediaSource

NUMBER = re.compile("([0-9]{1,3})e")
"""The end of a marker, with the number of its medium."""

CutPrompt = list[str | MediaSource]
"""A prompt's texts and media in order."""


class Markers:
    """Collects the media of one conversation, and makes the marker of each."""

    def __init__(self) -> None:
        self.sources: list[MediaSource] = []
        self.random = ""  # lower-case letters and digits, which templates leave as they are; drawn with the first one

    def add(self, source: MediaSource) -> str:
        """The text that stands for it. Raises InvalidRequest for one beyond MAX_SOURCES."""
        if len(self.sources) == MAX_SOURCES:
            raise wrong(source.field, ONE_TOO_MANY)
        if not self.random:
            self.random = secrets.token_hex(16)
        self.sources.append(source)
        return f"media{self.random}n{len(self.sources) - 1}e"


def cut_at_markers(text: str, random: str, sources: Sequence[MediaSource]) -> CutPrompt:
    """The rendered text in pieces, none of them empty.

    Raises InvalidRequest naming the part that the template showed not exactly once.
    """
    if not sources:
        return [text]
    pieces = _split(text, f"media{random}n")  # no pattern of its own: that takes longer to compile than all of this
    shown = Counter(map(int, pieces[1::2]))
    for at, source in enumerate(sources):
        n_times = shown.pop(at, 0)
        if n_times != 1:
            how = "leaves it out" if n_times == 0 else f"shows it {n_times} times"
            raise wrong(source.field, f"the model's chat template takes no media there: it {how}")
    if shown:
        raise wrong(sources[0].field, "the model's chat template changes what stands for media")
    cut: CutPrompt = [sources[int(piece)] if at % 2 else piece for at, piece in enumerate(pieces)]
    return [piece for piece in cut if piece != ""]


def _split(text: str, start: str) -> list[str]:
    """Texts and the numbers of the markers between them, in turn. `start` is how each marker begins."""
    first, *rest = text.split(start)
    pieces = [first]
    for piece in rest:
        if number := NUMBER.match(piece):
            pieces += number[1], piece[number.end() :]
        else:
            pieces[-1] += start + piece
    return pieces


def joined(parts: Sequence[tuple[str, bool]]) -> str:
    """(text, whether it is a marker) of each part as one text, with a line break between two texts.

    Around a marker there is none, as llama.cpp has it.
    """
    text = ""
    after_text = False
    for part, is_marker in parts:
        if after_text and not is_marker and text:
            text += "\n"
        text += part
        after_text = not is_marker
    return text


def content_of_parts(
    value: object, where: str, markers: Markers, read: Callable[[Any, str, Markers], tuple[str, bool]]
) -> str | list[dict[str, str]]:
    """A content that is an array of parts: one text where media are among them, else the parts, each a text.

    `read` takes a part, its field, and the markers; it returns a text, and whether that is a marker. Raises
    InvalidRequest naming the part.
    """
    if not isinstance(value, list):
        raise wrong(where, f"must be a string or an array of parts, not {describe(value)}")
    n_before = len(markers.sources)
    parts = [read(part, f"{where}[{i}]", markers) for i, part in enumerate(value)]
    if len(markers.sources) > n_before:
        return joined(parts)
    return [{"type": "text", "text": text} for text, _ in parts]
