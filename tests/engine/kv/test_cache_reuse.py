"""n_cache_reuse: what a prompt leaves out of a resident text is dropped from the memory, the rest moves together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.kv.reuse import MAX_MOVES
from llamabox.engine.request import Request, prompt_tokens
from tests.engine.driver import Driver, alone, request
from tests.fakes import FakeMemory, FakeRunner, FakeSampler

N_CTX = 64


def oracle(first: Request, second: Request) -> tuple[int, list[int]]:
    """Both in one memory, by llama.cpp's loops: the second's reused cells, and what it generates."""
    memory = FakeMemory()
    resident, _ = _generate(memory, list(prompt_tokens(first.prompt)), 0, first)
    cache, prompt, limit = resident[:-1], list(prompt_tokens(second.prompt)), len(prompt_tokens(second.prompt)) - 1
    n_past = 0
    while n_past < min(len(cache), limit) and cache[n_past] == prompt[n_past]:
        n_past += 1
    head_c = n_past
    while head_c < len(cache) and n_past < limit:
        n_match = 0
        while head_c + n_match < len(cache) and n_past + n_match < limit:
            if cache[head_c + n_match] != prompt[n_past + n_match]:
                break
            n_match += 1
        if n_match >= second.params.n_cache_reuse:
            memory.seq_rm(0, n_past, head_c)
            memory.seq_add(0, head_c, head_c + n_match, n_past - head_c)
            n_past += n_match
            head_c += n_match
        else:
            head_c += 1
    memory.seq_rm(0, n_past, -1)
    _, said = _generate(memory, prompt, n_past, second)
    return n_past, said


def _generate(memory: FakeMemory, tokens: list[int], n_past: int, asked: Request) -> tuple[list[int], list[int]]:
    sampler = FakeSampler(asked.params.sampling, asked.params.sampling.seed)
    n_vocab = FakeRunner().n_vocab
    said: list[int] = []
    while len(said) < asked.params.n_predict:
        for position in range(n_past, len(tokens)):
            value = memory.compute(0, tokens[position], position)
        n_past = len(tokens)
        said.append(sampler.choose(value, n_vocab))
        tokens = [*tokens, said[-1]]
    return tokens, said


@st.composite
def edited(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A text, and what is left of it when pieces are taken out, with a new end."""
    text = draw(st.lists(st.integers(1, 4), min_size=2, max_size=40))
    left = list(text)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(left)))
        del left[start : start + draw(st.integers(0, 8))]
    return tuple(text), tuple(left + draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)))


@settings(max_examples=200, deadline=None)
@given(texts=edited(), n_least=st.integers(1, 6), unified=st.booleans())
def test_a_prompt_goes_on_from_moved_cells_as_the_plain_loops_do(
    texts: tuple[tuple[int, ...], tuple[int, ...]], n_least: int, unified: bool
) -> None:
    first = request("first", texts[0], n_predict=3)
    second = request("second", texts[1], n_predict=5, n_cache_reuse=n_least)
    driver = Driver(FakeRunner(memory=FakeMemory(unified=unified)), n_slots=1, n_ctx=N_CTX)
    for one in (first, second):
        driver.submit(one)
        driver.run()
    n_reused, said = oracle(first, second)
    got = driver.transcripts["second", 0]
    assert got.started is not None
    assert got.started.n_cached == n_reused
    assert got.tokens == said
    assert got.finished is not None
    assert got.finished.timings.cache_n + got.finished.timings.prompt_n == len(texts[1])


HEAD, MIDDLE, TAIL = tuple(range(1, 17)), (30,) * 9, tuple(range(50, 70))
WHOLE, CUT = (*HEAD, *MIDDLE, *TAIL, 99), (*HEAD, *TAIL, 98)


def after_whole(memory: FakeMemory | None = None, **config: object) -> Driver:
    driver = Driver(FakeRunner(memory=memory), n_ctx=N_CTX, **config)
    driver.submit(request("whole", WHOLE, n_predict=1))
    driver.run()
    return driver


def n_cached(driver: Driver, name: str) -> int:
    started = driver.transcripts[name, 0].started
    assert started is not None
    return started.n_cached


def test_moved_cells_are_for_those_only_who_ask_for_such() -> None:
    driver = after_whole(n_slots=2)
    driver.submit(request("cut", CUT, n_predict=1, n_cache_reuse=8))
    driver.run()
    assert n_cached(driver, "cut") == len(CUT) - 1
    for name, n_least, expected in (("exact", 0, len(HEAD)), ("again", 8, len(CUT) - 1)):
        asked = request(name, CUT, n_predict=6, n_cache_reuse=n_least, id_slot=0 if n_least else -1)
        driver.submit(asked)
        driver.run()
        assert n_cached(driver, name) >= expected
        if not n_least:
            assert n_cached(driver, name) == expected
            assert driver.transcripts[name, 0].tokens == alone(asked, n_ctx=N_CTX)[0].tokens


def test_cells_that_another_text_shares_stay_where_they_are() -> None:
    driver = after_whole(n_slots=2)
    sharing = request("sharing", (*WHOLE, 5), n_predict=-1, id_slot=1)
    driver.submit(sharing)
    for _ in range(3):
        driver.step()
    driver.submit(request("cut", CUT, n_predict=4, n_cache_reuse=8, id_slot=0))
    while not driver.transcripts["cut", 0].is_over:
        driver.step()
        assert driver.engine.check_integrity() == []
    assert n_cached(driver, "cut") == len(CUT) - 1
    while len(driver.transcripts["sharing", 0].tokens) < 8:
        driver.step()
    expected = alone(request("sharing", (*WHOLE, 5), n_predict=12), n_ctx=N_CTX)[0].tokens
    assert driver.transcripts["sharing", 0].tokens == expected[: len(driver.transcripts["sharing", 0].tokens)]
    driver.abort("sharing")


def test_where_nothing_can_be_moved_nothing_is() -> None:
    for memory in (
        FakeMemory(can_shift=False),
        FakeMemory(n_window=12),
        FakeMemory(partial_removal=False),
    ):
        driver = after_whole(memory, n_slots=1)
        asked = request("cut", CUT, n_cache_reuse=4)
        driver.submit(asked)
        driver.run()
        assert n_cached(driver, "cut") in (0, len(HEAD))
        fresh = FakeMemory(n_window=memory.n_window, partial_removal=memory.partial_removal)
        expected = alone(asked, memory=fresh, n_ctx=N_CTX)
        assert driver.transcripts["cut", 0].tokens == expected[0].tokens


def test_without_room_to_separate_shared_cells_the_prompt_is_computed_anew() -> None:
    memory = FakeMemory(n_cells=len(WHOLE) + 20)
    driver = after_whole(memory, n_slots=2)
    driver.submit(request("sharing", (*WHOLE, 5), n_predict=2, id_slot=1))
    driver.run()
    asked = request("cut", CUT, n_predict=2, n_cache_reuse=8, id_slot=0)
    driver.submit(asked)
    driver.run()
    assert n_cached(driver, "cut") == 0
    assert driver.transcripts["cut", 0].tokens == alone(asked, n_ctx=N_CTX)[0].tokens


def test_the_choices_of_one_request_share_an_exact_prompt() -> None:
    driver = after_whole(n_slots=3)
    asked = request("cut", CUT, n=3, n_predict=3, n_cache_reuse=8, sampling={"temperature": 1.0})
    driver.submit(asked)
    driver.run()
    for index, expected in alone(asked, n_slots=3, n_ctx=N_CTX).items():
        assert driver.transcripts["cut", index].tokens == expected.tokens


def test_a_slot_full_of_something_else_is_not_taken_for_a_short_run() -> None:
    driver = Driver(n_slots=3, n_ctx=N_CTX)
    for name, tokens in (("a", (7,) * 4 + tuple(range(1, 50))), ("b", (8,) * 20), ("c", (9,) * 20)):
        driver.submit(request(name, tokens, n_predict=1))
        driver.run()
    driver.submit(request("b again", (8,) * 21, n_predict=1))  # so that a is not the oldest any more
    driver.submit(request("c again", (9,) * 21, n_predict=1))
    driver.run()
    driver.submit(request("a again", (7,) * 4 + tuple(range(1, 50)), n_predict=1))
    driver.run()
    driver.submit(request("short", (1, 2, 3, 4, 5, 6, 7, 8, 9, 60), n_predict=1, n_cache_reuse=4))
    driver.run()
    assert n_cached(driver, "short") == 0
    assert driver.transcripts["short", 0].started != driver.transcripts["a again", 0].started


def test_a_prompt_cut_into_countless_pieces_moves_only_some() -> None:
    pieces = tuple(token for i in range(270) for token in (1000 + i, 2000 + i, 3000 + i))
    driver = Driver(FakeRunner(n_batch=1024, n_ubatch=1024), n_slots=1, n_ctx=1024)
    driver.submit(request("whole", pieces, n_predict=1))
    driver.run()
    driver.submit(request("cut", (*(token for token in pieces if token < 3000), 9), n_predict=1, n_cache_reuse=1))
    driver.run()
    assert n_cached(driver, "cut") == 2 * (1 + MAX_MOVES)
