"""A task that fails is seen, and what must follow follows."""

from __future__ import annotations

import asyncio

import pytest

from llamabox import background


async def fails() -> None:
    raise ZeroDivisionError("a bug")


def test_a_failure_is_in_the_log_with_its_trace_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        told: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        task = background.spawn(fails(), "the work", told.set_result)
        assert isinstance(await told, ZeroDivisionError)
        assert task.done()

    asyncio.run(main())
    (record,) = caplog.records
    assert record.message == "the work failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_an_end_or_a_cancellation_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = background.spawn(asyncio.sleep(3600), "waiting", pytest.fail)
        await background.spawn(asyncio.sleep(0), "working", pytest.fail)
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(main())
    assert caplog.records == []
