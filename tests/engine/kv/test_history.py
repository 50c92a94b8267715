"""A history against a plain list of cells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.batch import MediaRows
from llamabox.engine.kv.history import History
from llamabox.engine.request import Media, Words

MEDIA = (
    Media(b"a", 1, 1),
    Media(b"b", 4, 2),
    Media(b"c", 6, 3),
    Media(b"c", 6, 3, is_causal=False),
    Media(b"c", 5, 3),
    Media(b"d", 3, 3),
    Media(b"e", 2, 5),
)

Part = list[int] | Media
Name = int | tuple[Media, int]  # a token, or a cell of a chunk
Cell = tuple[Name, int]  # what it says, and its position

texts = st.lists(st.integers(0, 2), min_size=1, max_size=4)
parts = st.lists(st.one_of(texts, st.sampled_from(MEDIA)), max_size=5)


def build(pieces: list[Part]) -> History:
    return History.of(tuple(piece if isinstance(piece, Media) else Words(tuple(piece)) for piece in pieces))


def oracle(pieces: list[Part]) -> tuple[list[Cell], int, list[int]]:
    """The cells, the next free position, and the cell counts at which the history may be cut."""
    cells: list[Cell] = []
    position = 0
    cuts = [0]
    for piece in pieces:
        if isinstance(piece, Media):
            cells += [((piece, i), position) for i in range(piece.n_cells)]
            position += piece.n_positions
            cuts.append(len(cells))
        else:
            for token in piece:
                cells.append((token, position))
                position += 1
                cuts.append(len(cells))
    return cells, position, cuts


def cells_of(history: History) -> list[Cell]:
    """As `rows` tells them, cell by cell."""
    found: list[Cell] = []
    for cell in range(len(history)):
        [(position, one)] = history.rows(cell, cell + 1)
        assert position == history.position(cell)
        found.append(((one.media, one.start), position) if isinstance(one, MediaRows) else (one[0], position))
    return found


def between(pieces: list[Part], start: int, stop: int) -> list[Part]:
    """The parts that make up cells [start, stop), neither of which may lie inside a chunk."""
    found: list[Part] = []
    offset = 0
    for piece in pieces:
        n_cells = piece.n_cells if isinstance(piece, Media) else len(piece)
        first, last = max(start - offset, 0), min(stop - offset, n_cells)
        if first < last:
            found.append(piece if isinstance(piece, Media) else piece[first:last])
        offset += n_cells
    return found


@given(parts)
def test_every_cell_has_its_key_and_its_position(pieces: list[Part]) -> None:
    history = build(pieces)
    cells, n_positions, _ = oracle(pieces)
    assert len(history) == len(cells)
    assert cells_of(history) == cells
    keys = history.keys()
    assert [key if key >= 0 else None for key in keys] == [name if isinstance(name, int) else None for name, _ in cells]
    assert history.n_positions == n_positions
    assert history.is_text == (not any(isinstance(piece, Media) for piece in pieces))


@given(parts, st.data())
def test_rows_are_the_cells_in_stretches_of_one_kind(pieces: list[Part], data: st.DataObject) -> None:
    history = build(pieces)
    stop = data.draw(st.integers(0, len(history)))
    start = data.draw(st.integers(0, stop))
    found: list[Cell] = []
    for position, stretch in history.rows(start, stop):
        if isinstance(stretch, MediaRows):
            found += [((stretch.media, i), position) for i in range(stretch.start, stretch.stop)]
        else:
            found += list(zip(stretch, range(position, position + len(stretch)), strict=True))
    assert found == cells_of(history)[start:stop]


@given(parts)
def test_two_cells_have_the_same_key_only_where_they_say_the_same(pieces: list[Part]) -> None:
    history = build(pieces)
    names = [name for name, _ in cells_of(history)]
    assert len(set(names)) == len(set(history.keys()))


@given(parts, st.data())
def test_a_history_may_end_inside_a_chunk_that_is_being_computed(pieces: list[Part], data: st.DataObject) -> None:
    whole = build(pieces)
    n_cells = data.draw(st.integers(0, len(whole)))
    history = History()
    for stop in (n_cells // 2, n_cells):
        history.append_from(whole, len(history), stop)
    cells, cuts = cells_of(whole)[:n_cells], oracle(pieces)[2]
    assert cells_of(history) == cells
    assert history.whole(n_cells) == max(cut for cut in cuts if cut <= n_cells)
    if cells:
        name, position = cells[-1]
        n_positions = 1 if isinstance(name, int) else name[0].n_positions
        assert history.last_positions == range(position, position + n_positions)
    assert (-1 in history.last_positions) == (not cells)


@given(parts, st.integers(0, 30))
def test_whole_is_the_largest_cut_that_spares_every_chunk(pieces: list[Part], n_cells: int) -> None:
    history = build(pieces)
    n_cells = min(n_cells, len(history))
    assert history.whole(n_cells) == max(cut for cut in oracle(pieces)[2] if cut <= n_cells)


@given(parts)
def test_a_stretch_ends_where_another_kind_of_cell_or_another_chunk_begins(pieces: list[Part]) -> None:
    history = build(pieces)
    names = [name for name, _ in cells_of(history)]
    for start, name in enumerate(names):
        end = history.stretch_end(start)
        [(_, one)] = history.rows(start, end)
        assert start < end <= len(names)
        if isinstance(name, int):
            assert end == len(names) or isinstance(names[end], tuple)
        else:
            assert end == start - name[1] + name[0].n_cells
        assert history.is_exclusive(start) == (isinstance(one, MediaRows) and not one.media.is_causal)


@given(parts, st.integers(0, 30), st.sampled_from([1, 2]))
def test_what_is_started_from_leaves_a_run_of_text_or_a_whole_chunk(
    pieces: list[Part], n_cells: int, n_least: int
) -> None:
    history = build(pieces)
    n_cells = min(n_cells, len(history) - 1) if len(history) else 0
    names = [name for name, _ in cells_of(history)]

    def is_fit(start: int) -> bool:
        if start == len(names) or start not in oracle(pieces)[2]:
            return False
        end = history.stretch_end(start)
        begins = start == 0 or isinstance(names[start], tuple) or isinstance(names[start - 1], tuple)
        return begins or end - start >= n_least

    if names:
        assert history.start_for(n_cells, n_least) == max(start for start in range(n_cells + 1) if is_fit(start))


@settings(max_examples=300)
@given(parts, parts, parts)
def test_the_common_prefix_is_the_longest_that_cuts_no_chunk(
    head: list[Part], left: list[Part], right: list[Part]
) -> None:
    one, other = head + left, head + right
    cells, _, cuts = oracle(one)
    other_cells, _, other_cuts = oracle(other)
    expected = max(cut for cut in cuts if cut in other_cuts and cells[:cut] == other_cells[:cut])
    assert build(one).common_prefix(build(other)) == expected
    assert build(other).common_prefix(build(one)) == expected


@given(parts, st.data())
def test_truncating_leaves_what_was_there_before_the_rest_was_added(pieces: list[Part], data: st.DataObject) -> None:
    cut = data.draw(st.sampled_from(oracle(pieces)[2]))
    history, expected = build(pieces), build(between(pieces, 0, cut))
    history.truncate(cut)
    assert cells_of(history) == cells_of(expected)
    assert history.n_positions == expected.n_positions
    assert history.is_text == expected.is_text


@given(parts, parts, st.data())
def test_cells_taken_from_another_history_stand_as_if_they_had_been_added_here(
    pieces: list[Part], source: list[Part], data: st.DataObject
) -> None:
    cuts = oracle(source)[2]
    start = data.draw(st.sampled_from(cuts))
    stop = data.draw(st.sampled_from([cut for cut in cuts if cut >= start]))
    history = build(pieces)
    history.append_from(build(source), start, stop)
    expected = build(pieces + between(source, start, stop))
    assert cells_of(history) == cells_of(expected)
    assert history.n_positions == expected.n_positions
    assert [history.whole(i) for i in range(len(history))] == [expected.whole(i) for i in range(len(expected))]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_discarding_closes_the_gap(tokens: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens)))
    stop = data.draw(st.integers(start, len(tokens)))
    history = History(tokens)
    history.discard(start, stop)
    left = tokens[:start] + tokens[stop:]
    assert cells_of(history) == list(zip(left, range(len(left)), strict=True))


@given(parts, st.data())
def test_a_gap_is_widened_to_whole_chunks_and_closed(pieces: list[Part], data: st.DataObject) -> None:
    history = build(pieces)
    cuts = oracle(pieces)[2]
    start = data.draw(st.integers(0, len(history)))
    stop = data.draw(st.integers(start, len(history)))
    first, last = history.widened(start, stop)
    assert first == max(cut for cut in cuts if cut <= start)
    assert last == min(cut for cut in cuts if cut >= stop)
    history.discard(first, last)
    expected = build(between(pieces, 0, first) + between(pieces, last, cuts[-1]))
    assert cells_of(history) == cells_of(expected)
    assert history.n_positions == expected.n_positions


def test_no_chunk_can_be_cut() -> None:
    history = build([[1, 2], MEDIA[2], [3]])
    for n_cells in (3, 7):
        with pytest.raises(AssertionError):
            history.truncate(n_cells)
    for start, stop in ((0, 3), (4, 8), (3, 4)):
        with pytest.raises(AssertionError):
            history.discard(start, stop)


def test_a_history_can_grow_after_it_was_compared() -> None:
    # The comparison looks at the array in place, and an array with a view on it refuses to grow.
    one, other = History([1, 2, 3]), History([1, 2, 4])
    assert one.common_prefix(other) == 2
    for history in (one, other):
        history.append(5)
        history.extend([6, 7])
        history.truncate(2)
    assert one.common_prefix(other) == 2


def test_what_was_handed_out_is_a_copy() -> None:
    history = History([1, 2, 3])
    history.keys().append(4)
    taken = History()
    taken.append_from(history, 0, 2)
    taken.append(9)
    assert history.keys() == [1, 2, 3]
    assert taken.keys() == [1, 2, 9]


@given(st.lists(st.integers(0, 0x10FFFF), max_size=20))
def test_a_text_has_a_character_for_each_cell(tokens: list[int]) -> None:
    assert [ord(character) for character in History(tokens).as_text()] == tokens


def test_token_ids_beyond_the_last_character_make_no_text() -> None:
    assert History([5, 0x110000]).as_text() == ""
