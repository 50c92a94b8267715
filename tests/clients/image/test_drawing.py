from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llamabox.clients.image import drawing as drawing_module
from llamabox.clients.image.drawing import Drawing
from llamabox.errors import InvalidRequest, Unavailable, to_wire
from llamabox.imaging.events import Drawn, JobFailed, JobFinished, JobProgress, JobStarted, Preview, Queued
from tests.clients.harness import run
from tests.clients.image.image_harness import all_of, job


def made(abandoned: list[Drawing], **arguments: Any) -> Drawing:
    return Drawing(job("a"), abandoned.append, **arguments)


def drawn(index: int) -> Drawn:
    return Drawn("a", index, b"png", 0, 0.0, 0.0, 4)


def preview(step: int, png: bytes) -> Preview:
    return Preview("a", 0, step, 9, png)


def test_an_abort_wakes_the_consumer_tells_once_and_drops_what_waits() -> None:
    async def main() -> None:
        abandoned: list[Drawing] = []
        drawing = made(abandoned)
        waiting = asyncio.ensure_future(drawing.batch())
        await asyncio.sleep(0)
        drawing.abort()
        drawing.abort()
        assert await waiting == []
        drawing.push(JobStarted("a"))
        drawing.queued(1)
        drawing.fail(Unavailable("late"))
        assert await drawing.batch() == []
        assert abandoned == [drawing]

    run(main())


@pytest.mark.parametrize("last", [JobFinished("a"), JobFailed("a", to_wire(InvalidRequest("wrong")))])
def test_what_has_ended_cannot_be_abandoned(last: JobFinished | JobFailed) -> None:
    async def main() -> None:
        abandoned: list[Drawing] = []
        drawing = made(abandoned)
        drawing.push(last)
        drawing.abort()
        assert abandoned == []

    run(main())


def test_a_place_is_told_when_it_changes_and_an_unread_one_is_replaced() -> None:
    async def main() -> None:
        drawing = made([])
        drawing.queued(3)
        drawing.queued(3)
        assert await drawing.batch() == [Queued("a", 3)]
        drawing.queued(3)
        drawing.queued(2)
        drawing.queued(1)
        assert await drawing.batch() == [Queued("a", 1)]

    run(main())


def test_a_slow_consumer_loses_the_oldest_progress_and_no_image() -> None:
    async def main() -> None:
        drawing = made([], max_lag=10)
        drawing.push(JobStarted("a"))
        for index in range(4):
            for step in range(100):
                drawing.push(JobProgress("a", index, step, 99))
            drawing.push(drawn(index))
        drawing.push(JobFinished("a"))
        events = await all_of(drawing)
        assert len(events) == 10
        assert events[0] == JobStarted("a")
        assert [event for event in events if isinstance(event, Drawn)] == [drawn(index) for index in range(4)]
        assert [event.step for event in events if isinstance(event, JobProgress)] == [96, 97, 98, 99]
        assert events[-1] == JobFinished("a")

    run(main())


def test_previews_are_bounded_by_their_bytes_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_module, "MAX_LAG_BYTES", 100)

    async def main() -> None:
        drawing = made([])
        for step in range(5):
            drawing.push(JobProgress("a", 0, step, 9))
            drawing.push(preview(step, b"x" * 40))
        events = await drawing.batch()
        assert [event.step for event in events if isinstance(event, Preview)] == [3, 4]
        assert len([event for event in events if isinstance(event, JobProgress)]) == 5
        drawing.push(preview(5, b"x" * 500))
        assert await drawing.batch() == [preview(5, b"x" * 500)]

    run(main())
