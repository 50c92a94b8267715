"""The image worker's receiving thread: it hands jobs and cancellations to the loop that draws."""

from __future__ import annotations

from llamabox.wire.frames import Message
from llamabox.wire.image import Cancel, Draw
from llamabox.workers.body import Body, ChannelReader
from llamabox.workers.image.loop import ImageLoop


class ImageReader(ChannelReader):
    """Receives while another thread draws."""

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._loop: ImageLoop | None = None

    def serve(self, loop: ImageLoop) -> None:
        """From now on jobs are taken in. Called before ImagesReady is sent."""
        self._loop = loop

    def _take(self, message: Message) -> bool:
        match message:
            case Draw():
                assert self._loop is not None, "a job before ImagesReady"
                self._loop.take(message.job)
            case Cancel():
                assert self._loop is not None, "a cancel before ImagesReady"
                self._loop.cancel(message.request_id)
            case _:
                return False
        return True

    def _end(self) -> bool:
        return self._loop is not None and self._loop.end()
