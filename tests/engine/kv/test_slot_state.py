"""A slot's state, kept elsewhere and put back, is as good as if it had never been away."""

from __future__ import annotations

import pytest

from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeMemory, FakeRunner

PROMPT = tuple(range(1, 21))


@pytest.mark.parametrize("unified", [True, False])
def test_a_restored_slot_is_gone_on_from_as_if_computed_there(unified: bool) -> None:
    driver = Driver(FakeRunner(memory=FakeMemory(unified=unified)))
    driver.submit(request("first", PROMPT, id_slot=0))
    driver.run()
    cache = driver.engine.cache
    state = cache.state(cache.slots[0])
    cache.clear(cache.slots[0])
    assert cache.restore(cache.slots[2], state)
    assert cache.check_integrity() == []
    longer = request("second", (*state.cells.keys(), 9, 9))
    driver.submit(longer)
    driver.run()
    got = driver.transcripts["second", 0]
    assert got.started is not None
    assert got.started.n_cached == len(state.cells)
    assert got.tokens == alone(longer)[0].tokens


def test_a_restored_slot_is_of_the_lora_set_that_computed_it() -> None:
    driver = Driver()
    lora = ((0, 0.5),)
    driver.submit(request("first", PROMPT, id_slot=0, lora=lora))
    driver.run()
    cache = driver.engine.cache
    state = cache.state(cache.slots[0])
    assert state.cells.lora == lora
    cache.clear(cache.slots[0])
    cache.restore(cache.slots[2], state)
    for name, chosen, n_cached in (("plain", (), 0), ("same", lora, len(state.cells))):
        longer = request(name, (*state.cells.keys(), 9, 9), lora=chosen)
        driver.submit(longer)
        driver.run()
        got = driver.transcripts[name, 0]
        assert got.started is not None
        assert got.started.n_cached == n_cached
        assert got.tokens == alone(longer)[0].tokens


def test_after_a_shift_only_what_is_exact_is_gone_on_from() -> None:
    driver = Driver(n_ctx=32)
    driver.submit(request("first", PROMPT, n_predict=40, n_keep=4, id_slot=0))
    driver.run()
    cache = driver.engine.cache
    state = cache.state(cache.slots[0])
    assert state.n_exact == 4
    cache.clear(cache.slots[0])
    cache.restore(cache.slots[1], state)
    again = request("second", state.cells.keys()[:-1])
    driver.submit(again)
    driver.run()
    assert driver.transcripts["second", 0].tokens == alone(again, n_ctx=32)[0].tokens


def test_a_state_without_room_leaves_the_slot_empty() -> None:
    driver = Driver(FakeRunner(memory=FakeMemory(n_cells=64)))
    driver.submit(request("first", PROMPT, id_slot=0))
    driver.run()
    cache = driver.engine.cache
    state = cache.state(cache.slots[0])
    assert cache.restore(cache.slots[1], state)
    assert not cache.restore(cache.slots[2], state)
    assert len(cache.slots[2].resident) == 0
    assert cache.check_integrity() == []


def test_a_copy_that_no_decode_carried_out_is_neither_saved_nor_does_it_overwrite_what_is_restored() -> None:
    # Seen with libllama and separate KV streams: the copy of a request whose sampler was then refused was saved as the
    # bytes that had been in the slot before.
    driver = Driver(FakeRunner(memory=FakeMemory(unified=False)), n_slots=2)
    driver.submit(request("first", PROMPT, n_predict=30, id_slot=0))
    driver.run()
    cache = driver.engine.cache
    good = cache.state(cache.slots[0])
    driver.submit(request("refused", PROMPT, sampling={"top_k": 666}))
    driver.run()
    assert driver.transcripts["refused", 0].failed is not None
    saved = cache.state(cache.slots[1])
    assert cache.restore(cache.slots[1], good)
    cache.clear(cache.slots[0])
    after_good = request("after good", (*good.cells.keys(), 9))
    after_saved = request("after saved", (*saved.cells.keys(), 9))
    for state, asked in ((good, after_good), (saved, after_saved)):
        if state is saved:
            assert cache.restore(cache.slots[0], saved)
        driver.submit(asked)
        driver.run()
        assert driver.transcripts[asked.request_id, 0].tokens == alone(asked)[0].tokens
    assert driver.transcripts["after good", 0].started.n_cached == len(good.cells)  # type: ignore[union-attr]
