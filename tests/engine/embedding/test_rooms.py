"""A passage's way through ggml's attention depends on its own length, and on nothing that is beside it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.embedding.rooms import LANES, SHORT, TILE, PlainRoom, TiledRoom

lengths = st.lists(st.integers(1, SHORT) | st.integers(1, 200), min_size=1, max_size=20)


@given(lengths, st.integers(1, 512))
def test_passages_do_not_overlap_and_the_first_has_room(lengths: list[int], n_most: int) -> None:
    for room in (PlainRoom(n_most), TiledRoom(n_most)):
        end = 0
        for i, n_tokens in enumerate(lengths):
            start = room.place(n_tokens)
            if start is None:
                assert i > 0
                assert room.n_used == end
                continue
            assert end <= start
            end = room.n_used
            assert end == start + n_tokens
            assert end <= n_most or start == 0
        assert room.n_rows >= end
        assert room.n_rows <= max(end, TILE)


@given(lengths, st.integers(1, 512))
def test_a_length_decides_on_the_path_and_the_place_within_a_tile(lengths: list[int], n_most: int) -> None:
    room = TiledRoom(n_most)
    placed = [(start, n_tokens) for n_tokens in lengths if (start := room.place(n_tokens)) is not None]
    in_tiles = room.n_rows >= TILE
    for start, n_tokens in placed:
        assert in_tiles == (n_tokens > SHORT)
        if in_tiles:
            assert start % LANES == 0
            assert start % TILE == 0 or start % TILE + n_tokens <= TILE


def test_little_is_filled_up() -> None:
    room = TiledRoom(128)
    assert [room.place(n) for n in (30, 30, 62)] == [0, 32, 64]
    room = TiledRoom(128)
    assert [room.place(n) for n in (70, 70, 40, 5)] == [0, None, 80, None]
    room = TiledRoom(128)
    assert [room.place(5) for _ in range(13)] == [*range(0, 60, 5), None]
