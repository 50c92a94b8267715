"""HTTP/2 flow control that holds the writer back.

Hypercorn's buffer of a stream wakes its writer whenever something was taken out, even if that was nothing because the
client's window is shut: such a stream is buffered without end, at megabytes a second where it carries probabilities.
"""

from __future__ import annotations

from hypercorn.protocol import h2
from hypercorn.protocol.h2 import StreamBuffer


class BoundedBuffer(StreamBuffer):
    """Hypercorn's, but a shut window wakes nobody."""

    async def pop(self, max_length: int) -> bytes:
        """What may go out now."""
        if max_length == 0 and self.buffer:
            return b""
        return await super().pop(max_length)


def bound_buffers() -> None:
    """From now on Hypercorn makes such buffers. Idempotent; it offers no other way to say so."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
