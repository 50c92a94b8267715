"""States are copied between steps for no longer than streams bear, whatever a copy costs."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from itertools import pairwise
from math import inf

import pytest

from llamabox.engine.kv import copy_time
from llamabox.engine.kv.copy_time import STREAM_COST, CopyTime
from llamabox.engine.kv.tier import host_tier
from llamabox.engine.kv.tier import ready as ready_memory
from llamabox.engine.scheduling import admission
from llamabox.engine.scheduling.pacing import LEAST_PAUSE
from tests.engine.driver import Clock, Driver, alone, request
from tests.fakes import FakeMemory, FakeRunner

N_CTX = 256


class SlowMemory(FakeMemory):
    """Copies `rate` bytes a second, on the driver's clock."""

    def __init__(self, clock: Clock, rate: float, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.clock = clock
        self.rate = rate
        self.n_copies = 0

    def state_size(self, seq_id: int) -> int:
        return len(FakeMemory.state_get(self, seq_id))

    def state_get(self, seq_id: int, into: memoryview | None = None) -> bytes | memoryview:
        state = super().state_get(seq_id, into)
        self._spend(len(state))
        return state

    def state_set(self, seq_id: int, state: bytes) -> bool:
        self._spend(len(state))
        return super().state_set(seq_id, state)

    def _spend(self, n_bytes: int) -> None:
        self.clock.now += n_bytes / self.rate
        self.n_copies += 1


def stream_beside_conversations(rate: float, *, beside: bool) -> tuple[Driver, SlowMemory, list[float]]:
    """Six long conversations come and come back on three slots; the times at which a stream said something."""
    memory = SlowMemory(Clock(), rate, unified=False)
    run = Driver(FakeRunner(memory=memory), n_slots=4, n_ctx=N_CTX, host_budget=10_000_000)
    memory.clock = run.clock
    stream = request("stream", prompt=(1, 2, 3), n_predict=200)
    if beside:
        run.submit(stream)
    said: list[float] = []
    asked = [
        request(f"{turn} {talker}", (talker,) * 100 + (turn,), n_predict=1)
        for turn in range(4)
        for talker in range(10, 16)
    ]
    for i in range(160):
        if i % 6 == 0 and asked and not run.engine.n_waiting:
            run.submit(asked.pop(0))
            if not asked:
                break
        if any(event.request_id == "stream" for event in run.step()):
            said.append(run.clock.now)
    run.run()
    for name, index in run.transcripts:
        one = run.requests[name]
        assert run.transcripts[name, index].tokens == alone(one, n_slots=4, n_ctx=N_CTX)[index].tokens
    return run, memory, said


@pytest.fixture(autouse=True)
def small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tier, "WORTH_KEEPING", 16)
    monkeypatch.setattr(admission, "WORTH_RESTORING", 4)


def test_a_stream_waits_no_longer_for_copies_than_it_bears() -> None:
    _, memory, said = stream_beside_conversations(rate=2_000, beside=True)  # a second and more for each
    gaps = [later - earlier for earlier, later in pairwise(said)]
    assert sum(gap > LEAST_PAUSE + 0.1 for gap in gaps) <= 1, "the first copy is how it learns"
    assert memory.n_copies <= 2


def test_copies_that_fit_are_made() -> None:
    _, memory, _ = stream_beside_conversations(rate=1e6, beside=True)
    assert memory.n_copies > 10


def test_where_nobody_waits_for_a_token_all_are_made() -> None:
    _, memory, _ = stream_beside_conversations(rate=2_000, beside=False)
    assert memory.n_copies > 10


def test_a_copy_that_was_slow_once_is_tried_again() -> None:
    clock = Clock()
    copying = CopyTime(clock)
    copying.allow(0.1)

    def slow() -> None:
        clock.now += 10.0

    copying.run(1000, slow)
    copying.begin_step()
    while not copying.fits(10**8):
        copying.may_fit_later(10**8)


def test_a_step_s_copies_share_its_time() -> None:
    clock = Clock()
    copying = CopyTime(clock)
    copying.allow(0.1)
    n_bytes = 9 * 10**7
    assert copying.fits(n_bytes)

    def copy() -> None:
        clock.now += 0.09

    copying.run(n_bytes, copy)
    assert not copying.fits(n_bytes)
    assert copying.may_fit_later(n_bytes)
    copying.allow(0.1)  # nothing has been computed in between
    assert not copying.fits(n_bytes)
    copying.begin_step()
    assert copying.fits(n_bytes)


def test_a_decode_lies_between_the_copies_for_many_who_come_together() -> None:
    """The events of an admission go out before the decode, and then slots are given again."""
    memory = SlowMemory(Clock(), float("inf"), unified=False)
    runner = FakeRunner(memory=memory)
    run = Driver(runner, n_slots=8, n_ctx=N_CTX, host_budget=10_000_000)
    memory.clock = run.clock
    come_back, others = range(10, 17), range(20, 28)
    for talker in (*come_back, *others):  # these push the states of those out of the slots
        run.submit(request(f"first {talker}", (talker,) * 100, n_predict=1))
        run.run_dry()
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    while not run.transcripts["stream", 0].tokens:
        run.step()
    memory.rate = memory.state_size(run.engine.cache.slots[0].slot_id) / (0.6 * LEAST_PAUSE)
    for talker in come_back:
        # More than a ubatch is left to be computed, so that an event tells of the beginning.
        run.submit(request(f"again {talker}", (talker,) * 100 + (1,) * 40, n_predict=1))
    copies_by_decode: Counter[int] = Counter()
    while not all(run.transcripts[f"again {talker}", 0].is_over for talker in come_back):
        n_decodes, n_copies = len(runner.batches), memory.n_copies
        run.step()
        copies_by_decode[n_decodes] += memory.n_copies - n_copies
    assert copies_by_decode.total() >= len(come_back)
    assert max(copies_by_decode.values()) <= 2, "one state that goes and one that comes"


def test_a_decode_copies_as_many_streams_as_fit_or_one_that_never_does() -> None:
    copying = CopyTime(Clock())
    copying.allow(0.1)
    for seconds, n_fitting in ((0.02, 5), (0.3, 1)):
        n_bytes = int(seconds / STREAM_COST)
        for _ in range(n_fitting):
            assert copying.may_put_off
            copying.put_off(n_bytes)
        assert not copying.may_put_off
        copying.begin_step()
        assert copying.is_long
        assert copying.may_put_off
        assert copying.fits(1)


def test_streams_that_stood_back_come_before_copies() -> None:
    copying = CopyTime(Clock())
    for n_streams, pause in ((1, 0.1), (0, inf)):
        copying.allow(pause)
        for is_awaited in (False, True):
            copying.begin_step()
            copying.computed(is_awaited=is_awaited)
            assert copying.is_overdue == (is_awaited and n_streams > 0)


class CountedMemory(FakeMemory):
    """Notes before which decode it copies from stream to stream, and before which it gives and takes states."""

    def __init__(self) -> None:
        super().__init__(unified=False)
        self.n_decodes = 0
        self.copies: Counter[int] = Counter()
        self.moved: Counter[int] = Counter()

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes | memoryview:
        self.moved[self.n_decodes] += 1
        return super().state_get(seq_id, into, part=part)

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        return len(FakeMemory.state_get(self, seq_id, part=part))

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        self.moved[self.n_decodes] += 1
        return super().state_set(seq_id, state, part=part)

    def seq_cp(self, source: int, target: int) -> None:
        self.copies[self.n_decodes] += 1
        super().seq_cp(source, target)

    def begin(self, n_sequences: int = 1) -> None:
        self.n_decodes += 1
        super().begin(n_sequences)


@pytest.mark.parametrize("mixes", [True, False])
@pytest.mark.parametrize("is_dear", [True, False])
def test_a_stream_waits_for_one_dear_copy_of_a_stream_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, mixes: bool, is_dear: bool
) -> None:
    monkeypatch.setattr(copy_time, "STREAM_COST", 1.0 if is_dear else 1e-9)
    memory = CountedMemory()
    runner = FakeRunner(memory=memory, mixes=mixes)
    run = Driver(runner, n_slots=6, n_ctx=N_CTX)
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    while not run.transcripts["stream", 0].tokens:
        run.step()
    asked = [request("four", (5,) * 100, n=4, n_predict=6), request("prompt", (7,) * 200, n_predict=1)]
    for one in asked:
        run.submit(one)
    run.run()
    assert memory.copies.total() == 3
    assert max(memory.copies.values()) == (1 if is_dear else 3)
    stream = runner.batches[0].runs[0].seq_id
    for n_before in memory.copies:
        lengths = {one.seq_id: len(one) for one in runner.batches[n_before].runs}
        if is_dear:
            assert stream in lengths, "it gets its token by the decode that copies"
            assert set(lengths.values()) == {1}, "no prompt comes on top of it"
            before = {one.seq_id for one in runner.batches[n_before - 1].runs}
            assert stream in before, "it has not waited before"
    for one in asked:
        for index, text in alone(one, n_slots=6, n_ctx=N_CTX).items():
            assert run.transcripts[one.request_id, index].tokens == text.tokens


def test_where_a_stream_waits_a_dear_copy_goes_by_way_of_host_memory_in_two_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copy_time, "STREAM_COST", 1.0)
    memory = CountedMemory()
    runner = FakeRunner(memory=memory)
    run = Driver(runner, n_slots=6, n_ctx=N_CTX, host_budget=10_000_000)
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    while not run.transcripts["stream", 0].tokens:
        run.step()
    asked = [request("three", (5,) * 100, n=3, n_predict=6)]
    for one in asked:
        run.submit(one)
    run.run()
    assert memory.copies.total() == 0
    assert memory.moved.total() == 3, "the state is taken once, and put into two slots"
    assert memory.moved[min(memory.moved)] == 1, "the stream gets its token before it is put anywhere"
    for one in asked:
        for index, text in alone(one, n_slots=6, n_ctx=N_CTX).items():
            assert run.transcripts[one.request_id, index].tokens == text.tokens


def test_streams_are_copied_where_a_state_is_as_large_or_may_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_time, "STREAM_COST", 1.0)
    for n_prompt, host_budget in ((200, 10_000_000), (100, 0), (100, 500)):
        memory = CountedMemory()
        run = Driver(FakeRunner(memory=memory), n_slots=6, n_ctx=N_CTX, host_budget=host_budget)
        run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
        while not run.transcripts["stream", 0].tokens:
            run.step()
        run.submit(request("two", (5,) * n_prompt, n=2, n_predict=6))
        run.run()
        assert memory.copies.total() == 1
        assert memory.moved.total() == 0


class Helper:
    """Makes memory when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Future[memoryview]]] = []

    def make(self, n_bytes: int) -> Future[memoryview]:
        self.asked.append((n_bytes, Future()))
        return self.asked[-1][1]

    def finish(self) -> None:
        n_bytes, future = self.asked[-1]
        future.set_result(memoryview(bytearray(n_bytes)))


def test_states_that_streams_wait_for_are_copied_into_memory_that_was_made_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready_memory, "LARGE", 1)
    monkeypatch.setattr(host_tier, "LARGE", 1)
    memory, helper = FakeMemory(unified=False), Helper()
    run = Driver(FakeRunner(memory=memory), n_slots=2, n_ctx=N_CTX, host_budget=10_000_000)
    run.engine.cache.tier.ready.made_by(helper.make)
    run.submit(request("old", (7,) * 100, n_predict=1))
    run.run()
    assert not helper.asked, "nobody waits for a token"
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=100))
    while not run.transcripts["stream", 0].tokens:
        run.step()
    run.step()
    assert len(helper.asked) == 1
    assert run.engine.cache._host.n_reserved == helper.asked[0][0]
    helper.finish()
    [n_bytes] = [n_bytes for n_bytes, _ in helper.asked]
    [old] = [slot.slot_id for slot in run.engine.cache.slots if len(slot.resident) == 100]
    assert n_bytes >= memory.state_size(old)
    run.submit(request("new", (8,) * 90, n_predict=1))
    run.run()
    host = run.engine.cache._host
    assert len(host) == 1
    assert host.n_bytes >= n_bytes, "all of that memory counts"
    run.submit(request("old again", (7,) * 100 + (9,), n_predict=3))
    run.run()
    started = run.transcripts["old again", 0].started
    assert started is not None
    assert started.n_cached == 100


@pytest.mark.parametrize("host_budget", [1, 4_000, 40_000, 10_000_000])
def test_states_and_the_memory_for_the_next_one_keep_to_the_budget(
    monkeypatch: pytest.MonkeyPatch, host_budget: int
) -> None:
    monkeypatch.setattr(ready_memory, "LARGE", 1)
    monkeypatch.setattr(host_tier, "LARGE", 1)
    memory, helper = FakeMemory(unified=False), Helper()
    run = Driver(FakeRunner(memory=memory), n_slots=3, n_ctx=N_CTX, host_budget=host_budget)
    host = run.engine.cache._host
    run.engine.cache.tier.ready.made_by(helper.make)
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    for i in range(120):
        if i % 10 == 0:
            run.submit(request(f"{i}", (i + 1,) * (40 + i), n_predict=1))
        run.step()
        if helper.asked and not helper.asked[-1][1].done():
            helper.finish()
        assert host.n_bytes + host.n_reserved <= host_budget
    run.run()
    assert bool(len(host)) == (host_budget >= 40_000)


def test_memory_is_made_once_and_one_that_does_not_come_is_not_waited_for() -> None:
    now = [0.0]
    helper, ready = Helper(), ready_memory.ReadyMemory(lambda: now[0])
    n_bytes = ready_memory.LARGE
    ready.want(n_bytes)
    assert not helper.asked
    ready.made_by(helper.make)
    ready.want(n_bytes - 1)
    assert not helper.asked, "so little makes no pause long"
    for _ in range(3):
        ready.want(n_bytes)
    assert len(helper.asked) == 1
    assert ready.is_coming
    assert ready.take(n_bytes) is None
    now[0] = 2 * ready_memory.PATIENCE
    assert not ready.is_coming
    helper.finish()
    for n_other in (2 * n_bytes, n_bytes // (ready_memory.WASTE + 1)):
        assert ready.take(n_other) is None
    ready.want(n_bytes)
    assert len(helper.asked) == 1
    memory = ready.take(n_bytes)
    assert memory is not None
    assert len(memory) >= n_bytes
    assert ready.take(n_bytes) is None
    ready.want(n_bytes)
    assert len(helper.asked) == 2


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("host_budget", [0, 10_000_000])
def test_a_slot_that_is_nearly_empty_is_copied_by_what_it_holds(waits: bool, host_budget: int) -> None:
    memory = CountedMemory()
    run = Driver(FakeRunner(memory=memory), n_slots=6, n_ctx=N_CTX, host_budget=host_budget)
    if waits:
        run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
        while not run.transcripts["stream", 0].tokens:
            run.step()
    one = request("three", (5,) * (N_CTX // host_tier.QUICKER - 20), n=3, n_predict=6)
    run.submit(one)
    run.run()
    assert memory.copies.total() == 0
    assert memory.moved.total() == 4, "two copies are read and written"
    for index, text in alone(one, n_slots=6, n_ctx=N_CTX).items():
        assert run.transcripts["three", index].tokens == text.tokens


@pytest.mark.parametrize(("factor", "n_moves"), [(2.0, 2), (1e6, 8)])
def test_short_copies_for_many_who_come_together_keep_the_pace_of_streams(factor: float, n_moves: int) -> None:
    memory = SlowMemory(Clock(), float("inf"), unified=False)
    runner = FakeRunner(memory=memory)
    run = Driver(runner, n_slots=8, n_ctx=N_CTX, gap_factor=factor)
    memory.clock = run.clock
    run.submit(request("first", (7,) * 40, n_predict=1))
    run.run()
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    while len(run.transcripts["stream", 0].tokens) < 10:
        run.step()
    [first] = [slot.slot_id for slot in run.engine.cache.slots if len(slot.resident) == 40]
    memory.rate = memory.state_size(first) / 0.01  # longer than a step
    for number in range(5):
        run.submit(request(f"{number}", (7,) * 40 + (number,) * 20, n_predict=40))
    copies_by_decode: Counter[int] = Counter()
    while not all(run.transcripts[f"{number}", 0].started for number in range(5)):
        n_decodes, n_copies = len(runner.batches), memory.n_copies
        run.step()
        copies_by_decode[n_decodes] += memory.n_copies - n_copies
    assert copies_by_decode.total() == 8, "one takes the slot over, four get copies that are read and written"
    assert max(copies_by_decode.values()) == n_moves
    for number in range(5):
        started = run.transcripts[f"{number}", 0].started
        assert started is not None
        assert started.n_cached == 40


@pytest.mark.parametrize(("factor", "n_moves"), [(2.0, 1), (1e6, 5)])
def test_states_that_many_push_out_at_once_keep_the_pace_of_streams(factor: float, n_moves: int) -> None:
    memory = SlowMemory(Clock(), float("inf"), unified=False)
    runner = FakeRunner(memory=memory)
    run = Driver(runner, n_slots=6, n_ctx=N_CTX, gap_factor=factor, host_budget=10_000_000)
    memory.clock = run.clock
    for talker in range(10, 16):
        run.submit(request(f"{talker}", (talker,) * 100, n_predict=1))
        run.run_dry()
    run.submit(request("stream", prompt=(1, 2, 3), n_predict=200))
    while len(run.transcripts["stream", 0].tokens) < 10:
        run.step()
    assert memory.n_copies == 1
    memory.rate = memory.state_size(run.engine.cache.free_slots()[0].slot_id) / 0.01  # longer than a step
    for talker in range(20, 25):
        run.submit(request(f"{talker}", (talker,) * 10, n_predict=40))
    copies_by_decode: Counter[int] = Counter()
    while not all(run.transcripts[f"{talker}", 0].started for talker in range(20, 25)):
        n_decodes, n_copies = len(runner.batches), memory.n_copies
        run.step()
        copies_by_decode[n_decodes] += memory.n_copies - n_copies
    assert copies_by_decode.total() == 5
    assert max(copies_by_decode.values()) == n_moves
