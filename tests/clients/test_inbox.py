"""Every inbox ends once, in one of three ways, and its consumer hears of everything before an error."""

from __future__ import annotations

import asyncio

import pytest

from llamabox.clients.inbox import Ending, Inbox
from llamabox.errors import ServerFault, Unavailable
from tests.clients.harness import run


class Words(Inbox[str]):
    """The plainest kind: a word weighs its letters, and an empty one completes."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: list[Ending] = []

    @property
    def weight(self) -> int:
        return self._weight

    def push(self, event: str) -> None:
        if event:
            super().push(event)
        else:
            self._complete()

    def _weigh(self, event: str) -> int:
        return len(event)

    def _on_end(self, ending: Ending) -> None:
        self.endings.append(ending)


@pytest.mark.parametrize("ending", Ending)
def test_it_ends_once_and_the_first_ending_stays(ending: Ending) -> None:
    async def main() -> None:
        words = Words()
        match ending:
            case Ending.COMPLETED:
                words.push("")
            case Ending.FAILED:
                words.fail(ServerFault("it broke"))
            case Ending.ABORTED:
                words.abort()
        words.fail(Unavailable("late"))
        words.abort()
        words.push("late")
        assert words.is_closed
        assert words.endings == [ending]
        for _ in range(2):  # asked again it says so again
            if ending is Ending.FAILED:
                with pytest.raises(ServerFault, match="it broke"):
                    await words.batch()
            else:
                assert await words.batch() == []

    run(main())


def test_events_before_an_error_are_taken_before_it_is_raised() -> None:
    async def main() -> None:
        words = Words()
        words.push("one")
        words.push("two")
        words.fail(ServerFault("it broke"))
        assert await words.batch() == ["one", "two"]
        with pytest.raises(ServerFault, match="it broke"):
            await words.batch()

    run(main())


def test_an_abort_drops_what_waits_and_wakes_the_consumer() -> None:
    async def main() -> None:
        words = Words()
        words.push("one")
        words.abort()
        assert await words.batch() == []
        waiting_for = Words()
        waiting = asyncio.ensure_future(waiting_for.batch())
        await asyncio.sleep(0)
        waiting_for.abort()
        assert await waiting == []

    run(main())


def test_the_events_of_a_step_are_one_batch_and_weigh_nothing_once_taken() -> None:
    async def main() -> None:
        words = Words()
        waiting = asyncio.ensure_future(words.batch())
        await asyncio.sleep(0)
        words.push("one")
        words.push("three")
        assert words.weight == 8
        assert await waiting == ["one", "three"]
        assert words.weight == 0

    run(main())


def test_leaving_it_as_a_context_manager_aborts_what_has_not_ended() -> None:
    async def main() -> None:
        async with Words() as left:
            pass
        async with Words() as complete:
            complete.push("")
        assert (left.endings, complete.endings) == ([Ending.ABORTED], [Ending.COMPLETED])

    run(main())
