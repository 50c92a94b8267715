from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.portions import CHEAP, portion

TILE = 64


def chunks(n_prompt: int, n_cached: int, n_chunk: int, tile: int, lead: int) -> list[tuple[int, int]]:
    """(where it begins, cells) of every chunk."""
    found, n_computed = [], n_cached
    while n_computed < n_prompt:
        n_cells = portion(n_prompt - n_computed, n_computed, n_chunk, tile=tile, lead=lead)
        found.append((n_computed, n_cells))
        n_computed += n_cells
    assert n_computed == n_prompt
    return found


@given(st.integers(1, 3000), st.integers(0, 2999), st.integers(1, 600), st.sampled_from([0, 1]))
def test_no_chunk_is_short_where_that_is_dear(n_prompt: int, n_cached: int, n_chunk: int, lead: int) -> None:
    n_cached = min(n_cached, n_prompt - 1)
    full = max(n_chunk // TILE, 1) * TILE + lead
    for start, n_cells in chunks(n_prompt, n_cached, n_chunk, TILE, lead):
        assert 1 <= n_cells < 2 * full
        if start >= CHEAP + full:  # what remains from the start is taken before that
            assert n_cells - lead >= TILE or n_prompt - n_cached < TILE + lead + CHEAP + full


@given(st.integers(1, 3000), st.integers(1, 600), st.sampled_from([0, 1]))
def test_a_fresh_prompt_is_cut_into_whole_tiles_but_for_its_beginning(n_prompt: int, n_chunk: int, lead: int) -> None:
    full = max(n_chunk // TILE, 1) * TILE + lead
    first, *others = [n_cells for _, n_cells in chunks(n_prompt, 0, n_chunk, TILE, lead)]
    assert all(n_cells == full for n_cells in others)
    assert first <= full


@given(st.integers(1, 3000), st.integers(1, 600))
def test_without_tiles_chunks_are_as_asked_for(n_prompt: int, n_chunk: int) -> None:
    *all_but_last, _ = [n_cells for _, n_cells in chunks(n_prompt, 0, n_chunk, 1, 1)]
    assert all(n_cells == n_chunk for n_cells in all_but_last)
