"""An engine on a machine whose steps take simulated seconds."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import pairwise

from llamabox.engine.batch import Batch
from llamabox.engine.engine import Engine
from llamabox.engine.events import Delta
from llamabox.engine.request import Media
from tests.engine.driver import engine_config, request
from tests.fakes import FakeEncoder, FakeMemory, FakeRunner, ubatches

N_UBATCH = 512


@dataclass(frozen=True)
class Machine:
    """A pass of n rows takes `least` seconds, which is what reading the weights takes, or n times `row` and `extra`."""

    least: float
    row: float
    extra: float = 0.0

    def seconds(self, n_rows: int) -> float:
        return max(self.least, n_rows * self.row + self.extra)

    def passes(self, batch: Batch) -> float:
        """Seconds of all passes of a batch."""
        return sum(self.seconds(sum(rows.values())) for rows in ubatches(batch, N_UBATCH))


SMALL = Machine(0.005, 0.0016, 0.005)
"""A model of 135 million weights on two cores with AVX2."""

LARGE = Machine(0.06, 0.02)
"""One of 1.2 billion: up to three rows cost what reading the weights does."""

WIDE = Machine(0.022, 0.0023)
"""The same with AVX-512, where a pass has room for ten."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedRunner(FakeRunner):
    """Each of its passes moves the clock on: within `execute`, or on a device that is waited for."""

    def __init__(self, machine: Machine, clock: Clock, *, is_steady: bool, has_device: bool = False) -> None:
        memory = FakeMemory(unified=False)
        super().__init__(n_batch=2048, n_ubatch=N_UBATCH, memory=memory, mixes=False, is_steady=is_steady)
        self._machine = machine
        self._clock = clock
        self._has_device = has_device
        self._computes = 0.0  # seconds that the device still needs
        self.n_passes = 0

    def execute(self, batch: Batch) -> None:
        super().execute(batch)
        self.n_passes += len(ubatches(batch, N_UBATCH))
        self._computes = self._machine.passes(batch)
        if not self._has_device:
            self.wait()

    def wait(self) -> None:
        self._clock.now += self._computes
        self._computes = 0.0

    def piece(self, token: int, special: bool) -> bytes:
        return b"A"  # else it might be a part of a character, which is told later


@dataclass
class Text:
    """When its request came, and each of its tokens."""

    came: float
    tokens: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds until its first token."""
        return self.tokens[0] - self.came

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.tokens)]


class Timed:
    """Texts by the order in which their requests came."""

    def __init__(
        self, machine: Machine, *, is_steady: bool = True, n_slots: int = 16, has_device: bool = False
    ) -> None:
        self.machine = machine
        self.clock = Clock()
        self.runner = TimedRunner(machine, self.clock, is_steady=is_steady, has_device=has_device)
        encoder = self.runner.encoder = FakeEncoder()
        config = engine_config(n_slots=n_slots, n_ctx=1024)
        self._engine = Engine(self.runner, config, encoder=encoder, clock=self.clock)
        self.texts: list[Text] = []
        self.come([9, 12], n_predict=4)  # as after any earlier request, it is known what rows and prompts take
        self.run()
        self.texts.clear()

    def come(self, lengths: Iterable[int], *, n_predict: int = 16, n_cells: int = 0) -> list[Text]:
        """Requests with prompts of these lengths come now, all at once. No two prompts begin alike.

        With `n_cells`, a picture of so many cells stands behind the first half of each.
        """
        come = []
        for n_tokens in lengths:
            number = len(self.texts)
            first = 1000 + 10 * number + int(1e6 * self.clock.now)
            half, rest = n_tokens // 2, n_tokens - 1 - n_tokens // 2
            picture = (Media(f"{number}".encode(), n_cells, n_cells),) if n_cells else ()
            prompt = (first, *[2] * half, *picture, *[2] * rest)
            self._engine.submit(request(f"{number}", prompt, n_predict=n_predict))
            self.texts.append(Text(self.clock.now))
            come.append(self.texts[-1])
        return come

    def step(self) -> None:
        """Compute something, if there is anything to compute."""
        before = self.clock.now
        while self.clock.now == before and not self._engine.is_idle:
            self._step()

    def _step(self) -> None:
        for event in self._engine.step().events:
            if isinstance(event, Delta):
                self.texts[int(event.request_id)].tokens += [self.clock.now] * len(event.tokens)

    def run(self, texts: Seq[Text] | None = None, *, n_tokens: int = 1) -> None:
        """Until each of the `texts` has so many tokens; None: until all is done."""
        while not self._engine.is_idle if texts is None else any(len(text.tokens) < n_tokens for text in texts):
            self.step()
