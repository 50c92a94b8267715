"""Replies about pictures, plain and in streams (docs/api.md, Image streams), and OpenAI's events beside them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamabox.imaging.events import Drawn, JobProgress, Preview
from llamabox.server.http.json import dump_line

DONE = b"data: [DONE]\n\n"

TOGETHER = 64
"""Chunks that are made and sent in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShape:
    """Writes one request's events."""

    created: int  # seconds since the epoch
    model: str
    size: str
    n: int
    include_usage: bool
    chunk_size: int  # characters of a picture in a chunk; 0: all
    openai: str | None  # what OpenAI's events are called here, as image_generation; None: without their fields

    def whole(self, drawn: Sequence[Drawn]) -> dict[str, Any]:
        """The plain reply."""
        entries = [
            _entry(one.index, "image", 100, b64_json=_base64(one.png), finish_reason="stop")
            for one in sorted(drawn, key=lambda one: one.index)
        ]
        return {**self._head(entries), "usage": usage_of(drawn)}

    def progress(self, event: JobProgress) -> bytes:
        """A step is done."""
        return self._chunk(_stepped(event), kind="progress")

    def preview(self, event: Preview, n_before: int) -> bytes:
        """The picture as it looks so far; `n_before` previews of this image came earlier."""
        png = _base64(event.png)
        return self._chunk(_stepped(event, b64_json=png), kind="partial_image", partial_image_index=n_before, png=png)

    def picture(self, event: Drawn, drawn: Sequence[Drawn]) -> Iterator[bytes]:
        """An image is done, in thousands of chunks maybe, some at a time. `drawn` are all so far.

        The usage stands in the very last image's last chunk.
        """
        png = _base64(event.png)
        usage = usage_of(drawn) if self.include_usage and len(drawn) == self.n else None
        pieces = list(self._pieces(png))
        for start in range(0, len(pieces) - 1, TOGETHER):
            some = pieces[start : min(start + TOGETHER, len(pieces) - 1)]
            yield b"".join(self._chunk(_entry(event.index, "image.chunk", 100, b64_json=piece)) for piece in some)
        last = _entry(event.index, "image.chunk", 100, b64_json=pieces[-1], finish_reason="stop")
        yield self._chunk(last, usage=usage, kind="completed", png=png)

    def _pieces(self, png: str) -> Iterator[str]:
        size = self.chunk_size or len(png)
        yield from (png[start : start + size] for start in range(0, len(png), size))

    def _head(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {"created": self.created, "model": self.model, "object": "list", "data": entries}

    def _chunk(
        self, entry: dict[str, Any], *, usage: dict[str, Any] | None = None, kind: str = "", png: str = "", **more: Any
    ) -> bytes:
        value = {**self._head([entry]), "usage": usage}
        if self.openai and kind:
            value |= {"type": f"{self.openai}.{kind}", "created_at": self.created, "size": self.size}
            value |= {"output_format": "png", "background": "opaque", "quality": "auto", **more}
            if png:
                value["b64_json"] = png
        return b"data: " + dump_line(value) + b"\n\n"


def usage_of(drawn: Sequence[Drawn]) -> dict[str, float]:
    """Averages over the images: milliseconds before the first step, milliseconds of all steps, steps in a second."""
    n = max(len(drawn), 1)
    return {
        "time_to_process_ms": sum(one.prepare_ms for one in drawn) / n,
        "time_per_generation_ms": sum(one.sampling_ms for one in drawn) / n,
        "generation_per_second": sum(1e3 * one.steps / one.sampling_ms for one in drawn if one.sampling_ms > 0) / n,
    }


def _stepped(event: JobProgress | Preview, **more: Any) -> dict[str, Any]:
    # Decoding the picture after the steps counts as one more: at 100 it is there.
    share = round(100 * event.step / (event.steps + 1), 2)
    steps: dict[str, Any] = {"progressed_steps": event.step, "progress_steps": event.steps}
    return _entry(event.index, "image.chunk", share, **steps, **more)


def _entry(index: int, kind: str, progress: float, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": index, "object": kind, "progress": progress, **more, "finish_reason": finish_reason}


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
