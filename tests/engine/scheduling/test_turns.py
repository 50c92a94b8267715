"""LoRA sets take turns: one set a step, none left waiting, and no cell of one in a text of another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.request import LoraSet, lora_set
from llamabox.engine.scheduling.pacing import MIN_CHUNK
from llamabox.engine.scheduling.turns import TURN, Turns
from tests.engine.driver import Driver, alone, request
from tests.engine.workbench import Workbench
from tests.fakes import FakeMemory, FakeRunner

A, B, C, D = (((0, scale),) for scale in (1.0, 0.5, -1.0, 2.0))
PROMPT = tuple(range(1, 41))


@given(st.dictionaries(st.integers(0, 5), st.floats(-2, 2), max_size=5))
def test_a_set_is_the_same_in_whatever_order_it_is_named(scales: dict[int, float]) -> None:
    chosen = lora_set(scales)
    assert chosen == lora_set(dict(reversed(scales.items())))
    assert all(scale != 0 for _, scale in chosen)
    assert {**dict.fromkeys(scales, 0), **dict(chosen)} == scales


@given(st.lists(st.sets(st.sampled_from([(), A, B, C, D]), min_size=1), min_size=1, max_size=200))
def test_whoever_has_work_all_along_is_served_within_a_turn_of_each_other_set(steps: list[set[LoraSet]]) -> None:
    """Whatever other sets come and go meanwhile."""
    turns = Turns()
    n_waited: dict[LoraSet, int] = {}
    for sets in steps:
        chosen = turns.next(sorted(sets))
        assert chosen in sets
        n_waited = {one: n_waited.get(one, 0) + 1 for one in sets if one != chosen}
        assert all(n <= 4 * TURN for n in n_waited.values())


def test_a_stream_of_new_sets_does_not_hold_up_an_old_one() -> None:
    turns = Turns()
    served = []
    for i in range(20):
        turns.end()
        served.append(turns.next([A, ((1, 1.0 + i),)]))
    assert served.count(A) >= 9


def test_one_set_has_every_turn() -> None:
    turns = Turns()
    assert {turns.next([A]) for _ in range(3 * TURN)} == {A}


def test_texts_of_several_sets_get_equally_far() -> None:
    bench = Workbench(n_slots=6)
    sequences = [bench.add((10 + i,), n_predict=-1, lora=lora) for i, lora in enumerate((A, (), B, A, (), A))]
    while min(sequence.n_generated for sequence in sequences) < 1:
        bench.step()
    before = [sequence.n_generated for sequence in sequences]
    for _ in range(3 * TURN * 10):
        work = bench.step()
        assert {share.sequence.params.lora for share in work.shares} == {work.batch.lora}
    gained = [sequence.n_generated - n for sequence, n in zip(sequences, before, strict=True)]
    assert min(gained) >= 9 * TURN, gained
    assert max(gained) <= 11 * TURN, gained


def test_a_long_prompt_of_one_set_does_not_hold_up_the_text_of_another() -> None:
    bench = Workbench(n_slots=2, n_ctx=4096, n_chunk=32)
    running = bench.add_decoding((7,), lora=A)
    long = bench.add(PROMPT * 50, n_predict=1, lora=B)
    n_steps = 0
    before = running.n_generated
    while not long.n_generated:
        work = bench.step()
        n_steps += 1
        assert work.n_prefill == 0 or len(work.batch) <= MIN_CHUNK, (
            "a prompt's step is short while somebody else decodes"
        )
    assert running.n_generated - before >= n_steps // 2 - 1


def test_without_continuous_batching_a_prompt_of_another_set_waits_and_nobody_stands_still() -> None:
    bench = Workbench(n_slots=2, cont_batching=False)
    running = bench.add((7,), n_predict=20, lora=A)
    while not running.n_generated:
        bench.step()
    waiting = bench.add(PROMPT, n_predict=1, lora=B)
    while running in bench.scheduler.running:
        assert len(bench.step().batch) == 1
    assert waiting.n_generated == 0
    while not waiting.n_generated:
        bench.step()


def test_a_prefix_of_another_set_is_not_reused_nor_waited_for() -> None:
    driver = Driver(FakeRunner(memory=FakeMemory()), n_slots=3)
    driver.submit(request("first", PROMPT, lora=A))
    driver.submit(request("second", PROMPT, lora=B))
    driver.step()
    assert len(driver.engine.running) == 2, "the second does not wait for the cells of the first"
    driver.run()
    driver.submit(request("third", PROMPT, lora=A))
    driver.submit(request("fourth", PROMPT))
    driver.run()
    for name, lora, n_cached in (("second", B, 0), ("third", A, len(PROMPT) - 1), ("fourth", (), 0)):
        got = driver.transcripts[name, 0]
        assert got.started is not None
        assert got.started.n_cached == n_cached
        assert got.tokens == alone(request(name, PROMPT, lora=lora))[0].tokens
    assert driver.transcripts["first", 0].tokens != driver.transcripts["second", 0].tokens
