"""What a message costs on its way through the codec, there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llamabox.engine.events import Activity, Delta, Likely, StepTimes, Timings, TokenProbs, Vector
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.wire.frames import PREFIX, Message, decode, encode
from llamabox.wire.image import Draw
from llamabox.wire.text import Step, Submit, Vectors

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


def deltas(n_probs: int = 0) -> Step:
    """One step of 32 streams."""
    probs = [TokenProbs(likely(0), [likely(i) for i in range(n_probs)])] if n_probs else None
    timings = Timings(12, 340, 56.7890123, 128, 1234.5678901, 0.0123)
    events = [Delta(str(1000 + i), 0, " word", [1000 + i], timings, probs) for i in range(32)]
    return Step([*events], Activity(n_decode=1000, n_busy=31000), StepTimes(1e-4, 2e-3, 3e-4, 4e-4, 1e-4))


def likely(i: int) -> Likely:
    return Likely(i, b" word", -0.0123 * i)


def submit() -> Submit:
    """With as much of everything as a client may send."""
    sampling = SamplingParams(logit_bias=tuple((i, 0.5) for i in range(4096)))
    stop = tuple(f"stop {i}" for i in range(256))
    params = GenerationParams(stop=stop, lora=((0, 1.0), (1, 0.5)), json_schema="{}" * 5000, sampling=sampling)
    return Submit(request_id="1", prompt=["a prompt " * 1000], params=params)


MESSAGES: dict[str, Message] = {
    "32 deltas": deltas(),
    "32 deltas with 10 likely tokens each": deltas(n_probs=10),
    "a plain submit": Submit(request_id="1", prompt=["a prompt"], params=GenerationParams()),
    "a large submit": submit(),
    "32 vectors": Vectors([Vector("1", i, 12, bytes(4 * 384)) for i in range(32)], Activity()),
    "a draw of 4 KiB": Draw(ImageJob(request_id="1", prompt="a cat", init=Pixels(37, 37, 3, bytes(37 * 37 * 3)))),
}


def there_and_back(message: Message) -> Message:
    frame = encode(message)
    behind = PREFIX.size + PREFIX.unpack(frame[: PREFIX.size])[0]
    return decode(frame[PREFIX.size : behind], frame[behind:])


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_there_and_back(benchmark: BenchmarkFixture, message: Message) -> None:
    assert benchmark(there_and_back, message) == message
