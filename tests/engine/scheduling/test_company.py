"""Who shares a batch, and where prompts are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.scheduling.company import CHEAP, SHORTEST, Company, Kind, joined, portion, run_length, stragglers
from llamabox.engine.seams import RunnerFacts

TILE = 64


def chunks(n_prompt: int, n_cached: int, n_chunk: int, tile: int) -> list[tuple[int, int]]:
    """(where it begins, cells) of every chunk."""
    found, n_computed = [], n_cached
    while n_computed < n_prompt:
        n_cells = portion(n_prompt - n_computed, n_computed, n_chunk, tile=tile)
        found.append((n_computed, n_cells))
        n_computed += n_cells
    assert n_computed == n_prompt
    return found


@given(st.integers(1, 3000), st.integers(0, 2999), st.integers(1, 600))
def test_no_chunk_is_short_where_that_is_dear(n_prompt: int, n_cached: int, n_chunk: int) -> None:
    n_cached = min(n_cached, n_prompt - 1)
    full = max(n_chunk // TILE, 1) * TILE
    for start, n_cells in chunks(n_prompt, n_cached, n_chunk, TILE):
        assert 1 <= n_cells < 2 * full
        if start >= CHEAP + full:  # what remains from the start is taken before that
            assert n_cells >= TILE or n_prompt - n_cached < TILE + CHEAP + full


@given(st.integers(1, 3000), st.integers(1, 600))
def test_a_fresh_prompt_is_cut_into_whole_tiles_but_for_its_beginning(n_prompt: int, n_chunk: int) -> None:
    full = max(n_chunk // TILE, 1) * TILE
    first, *others = [n_cells for _, n_cells in chunks(n_prompt, 0, n_chunk, TILE)]
    assert all(n_cells == full for n_cells in others)
    assert first <= full


@given(st.integers(1, 3000), st.integers(1, 600))
def test_without_tiles_chunks_are_as_asked_for(n_prompt: int, n_chunk: int) -> None:
    *all_but_last, _ = [n_cells for _, n_cells in chunks(n_prompt, 0, n_chunk, 1)]
    assert all(n_cells == n_chunk for n_cells in all_but_last)


@given(st.integers(2, 200), st.integers(SHORTEST, 200))
def test_a_prompt_is_computed_in_runs_without_a_lone_row(n_prompt: int, n_most: int) -> None:
    n_pending = n_prompt
    while n_pending:
        length = run_length(n_pending, n_most, ())
        assert 2 <= length <= n_most
        n_pending -= length


@given(st.integers(1, 60), st.integers(0, 60), st.sets(st.integers(2, 60), max_size=6))
def test_runs_beside_others_leave_no_lone_row_of_either(n_pending: int, n_most: int, others: set[int]) -> None:
    length = run_length(n_pending, n_most, others)
    if length:
        assert 2 <= length <= min(n_pending, n_most)
        assert n_pending - length != 1
        assert all(abs(length - other) != 1 for other in others)
        longer = range(length + 1, min(n_pending, n_most) + 1)
    else:
        longer = range(2, min(n_pending, n_most) + 1)
    for one in longer:
        assert n_pending - one == 1 or any(abs(one - other) == 1 for other in others), "a longer one would have done"


@given(st.sets(st.integers(0, 20)))
def test_stragglers_are_few_beside_a_stretch_of_slots_that_is_as_long_as_any(slot_ids: set[int]) -> None:
    apart = stragglers(slot_ids)
    together = sorted(slot_ids - apart)
    assert apart <= slot_ids
    if apart:
        assert together == list(range(together[0], together[0] + len(together)))
        assert 2 * len(apart) <= len(together)
        assert not {together[0] - 1, together[-1] + 1} & slot_ids
    longest = max(map(len, stretches(slot_ids)), default=0)
    assert len(apart) in (0, len(slot_ids) - longest)
    assert bool(apart) == (0 < len(slot_ids) - longest <= longest / 2)


def stretches(slot_ids: set[int]) -> list[set[int]]:
    """All slots from one to another of which none is missing."""
    found = []
    for start in slot_ids:
        stop = start
        while stop in slot_ids:
            stop += 1
            found.append(set(range(start, stop)))
    return found


def company(*, mixes: bool = False, is_steady: bool = False) -> Company:
    return Company(RunnerFacts(n_batch=64, n_ubatch=32, mixes=mixes, is_steady=is_steady))


@given(st.lists(st.sets(st.sampled_from([Kind.LONE, Kind.RUN, Kind.MEDIA, Kind.EXCLUSIVE]), min_size=1), max_size=40))
def test_what_decodes_waits_for_one_batch_and_the_others_for_their_turn(script: list[set[Kind]]) -> None:
    one = company()
    n_waited = dict.fromkeys(Kind, 0)
    for kinds in script:
        chosen = one.turn((), kinds)
        assert chosen in kinds
        n_waited[chosen] = 0
        for kind in kinds - {chosen}:
            n_waited[kind] += 1
            assert n_waited[kind] <= (1 if kind is Kind.LONE else 6)


def test_lone_rows_go_first_and_then_the_kinds_take_turns_by_lora_set() -> None:
    one = company()
    both = {Kind.RUN, Kind.LONE}
    assert [one.turn((), both) for _ in range(3)] == [Kind.LONE, Kind.RUN, Kind.LONE]
    assert one.turn(((0, 1.0),), both) is Kind.LONE
    assert one.turn((), {Kind.LONE}) is Kind.LONE
    assert one.turn((), both) is Kind.RUN, "it still waits"


@pytest.mark.parametrize("streams", [Kind.ANY, Kind.LONE])
def test_streams_have_every_second_batch_beside_prompts_and_pictures(streams: Kind) -> None:
    one = company(mixes=streams is Kind.ANY)
    others = {Kind.RUN, Kind.MEDIA, Kind.EXCLUSIVE}
    turns = [one.turn((), {streams, *others}) for _ in range(12)]
    assert turns[::2] == [streams] * 6
    assert {*turns[1:6:2]} == {*turns[7::2]} == others


def test_rows_apart_take_turns_with_what_else_streams_wait_for() -> None:
    one = company(is_steady=True)
    kinds = one.kinds([1, 1, 1], has_prompts=True, has_media=True, has_apart=True)
    assert kinds == {Kind.LONE, Kind.APART, Kind.RUN, Kind.MEDIA}
    turns = [one.turn((), kinds) for _ in range(12)]
    assert turns[::2] == [Kind.LONE] * 6
    assert {*turns[1:6:2]} == {*turns[7::2]} == kinds - {Kind.LONE}


@given(st.sets(st.integers(0, 15), min_size=1), st.sets(st.integers(0, 15)))
def test_slots_that_join_others_make_no_further_stretches(slot_ids: set[int], free: set[int]) -> None:
    others = free - slot_ids
    found = joined(slot_ids, others)
    assert set(found) <= others
    assert len(set(found)) == len(found)
    for n in range(len(found) + 1):
        assert n_stretches(slot_ids | set(found[:n])) <= n_stretches(slot_ids)
    for slot_id in others.difference(found):
        assert n_stretches(slot_ids | set(found) | {slot_id}) > n_stretches(slot_ids | set(found))


def n_stretches(slot_ids: set[int]) -> int:
    return sum(slot_id - 1 not in slot_ids for slot_id in slot_ids)


def test_nothing_stands_back_where_rows_mix() -> None:
    one = company(mixes=True)
    assert one.kinds([1, 5], has_prompts=True) == one.kinds([1], has_prompts=False) == {Kind.ANY}
    assert one.kinds([], has_prompts=False) == set()


@pytest.mark.parametrize("mixes", [False, True])
def test_an_exclusive_chunk_is_a_kind_of_its_own_that_takes_turns(mixes: bool) -> None:
    one = Company(RunnerFacts(n_batch=64, n_ubatch=32, mixes=mixes))
    assert one.kinds([], has_prompts=False, has_exclusive=True) == {Kind.EXCLUSIVE}
    kinds = one.kinds([1], has_prompts=False, has_exclusive=True)
    assert {one.turn((), kinds), one.turn((), kinds)} == kinds
    assert len(kinds) == 2


@pytest.mark.parametrize("mixes", [False, True])
def test_rows_of_media_take_turns_with_tokens(mixes: bool) -> None:
    one = Company(RunnerFacts(n_batch=64, n_ubatch=32, mixes=mixes, takes_media=True))
    kinds = one.kinds([1], has_prompts=False, has_media=True)
    assert kinds == {Kind.MEDIA, Kind.ANY if mixes else Kind.LONE}
    assert {one.turn((), kinds), one.turn((), kinds)} == kinds
    assert one.room(Kind.MEDIA, 0) == 32


def test_nobody_joins_a_chunk_of_one_cell() -> None:
    assert run_length(10, 10, {1}) == 0
    assert company().chunk_length(1, 5, 10, 10, ()) == 1


def test_lone_rows_and_runs_are_two_kinds_where_they_do_not_mix() -> None:
    one = company()
    assert one.kinds([1, 1], has_prompts=False) == {Kind.LONE}
    assert one.kinds([5], has_prompts=False) == one.kinds([], has_prompts=True) == {Kind.RUN}
    assert one.kinds([1, 5], has_prompts=False) == one.kinds([1], has_prompts=True) == {Kind.LONE, Kind.RUN}


@pytest.mark.parametrize(("mixes", "is_steady", "may_draft"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)])
def test_drafts_need_rows_that_come_out_alike(mixes: int, is_steady: int, may_draft: int) -> None:
    facts = RunnerFacts(n_batch=64, n_ubatch=32, mixes=bool(mixes), is_steady=bool(is_steady))
    assert facts.may_draft == bool(may_draft)
