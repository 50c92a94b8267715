"""From parsed requests to the events of their sequences, in the order in which they come.

Generators are closed by `aclosing`, not by the collector: an abort must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing

from llamabox.checks import wrong
from llamabox.engine.events import Event
from llamabox.engine.request import PromptText
from llamabox.errors import LlamaboxError
from llamabox.server.fields.request import Options
from llamabox.server.hosted.seams import Stream, TextService
from llamabox.server.hosted.text import HostedText
from llamabox.wire.text import Submit

MAX_ANSWERS = 1024
"""Sequences of one request: each has a task, an end of its own to be told, and a place in the engine's queue."""

MAX_WAITING = 64
"""Batches of events of several prompts that wait for one slow client; what comes after waits in the generations."""


def make_submits(hosted: HostedText, prompts: list[PromptText], options: Options) -> list[Submit]:
    """One for each prompt, with ids of their own.

    Raises InvalidRequest where that makes too many answers, QueueFull where they would have to wait behind too many.
    """
    n = options.params.n
    if len(prompts) * n > MAX_ANSWERS:
        what = f"{len(prompts)} prompts with n = {n} are {len(prompts) * n} answers"
        raise wrong("prompt", f"{what}; one request may ask for {MAX_ANSWERS}")
    if options.prediction and len(prompts) * n > 1:
        raise wrong("prediction", "foresees one answer: ask for one, with n = 1 and a single prompt, or leave it out")
    hosted.client.check_room()
    return [
        Submit(
            request_id=hosted.next_request_id(),
            prompt=prompt,
            params=options.params,
            prediction=options.prediction,
        )
        for prompt in prompts
    ]


async def events_of(client: TextService, submits: list[Submit]) -> AsyncGenerator[tuple[int, list[Event]], None]:
    """(position of the prompt, its next events), until all have ended. The first error ends everything.

    Leaving the iteration early, by close or cancellation, aborts what still runs.
    """
    with ExitStack() as stack:
        generations = client.generate_all(submits)
        for generation in generations:
            stack.callback(generation.abort)
        if len(generations) == 1:
            while events := await generations[0].batch():
                yield 0, events
            return
        async with aclosing(_merged(generations)) as merged:
            async for item in merged:
                yield item


async def _merged(generations: Sequence[Stream[Event]]) -> AsyncGenerator[tuple[int, list[Event]], None]:
    queue: asyncio.Queue[tuple[int, list[Event] | LlamaboxError]] = asyncio.Queue(MAX_WAITING)
    pumps = [asyncio.create_task(_pump(position, one, queue)) for position, one in enumerate(generations)]
    try:
        n_open = len(pumps)
        while n_open:
            position, events = await queue.get()
            if isinstance(events, LlamaboxError):
                raise events
            if events:
                yield position, events
            else:
                n_open -= 1
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    position: int, generation: Stream[Event], queue: asyncio.Queue[tuple[int, list[Event] | LlamaboxError]]
) -> None:
    """Ends with [] or with the error that ended the generation."""
    try:
        while events := await generation.batch():
            await queue.put((position, events))
        await queue.put((position, []))
    except LlamaboxError as exc:
        await queue.put((position, exc))
