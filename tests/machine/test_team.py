"""How many threads decode beside others that want the processors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llamabox.machine.team import FEW, FEW_ROWS, LEAST_WAIT, MOST, SOON, Team, TeamSize

QUICK = (0.01, 0.0)
HELD_UP = (0.03, 0.02)


def team_after(n_threads: int, decodes: list[tuple[float, float]]) -> TeamSize:
    """One that such decodes were made with."""
    size = TeamSize(n_threads)
    for one in decodes:
        size.took(*one)
    return size


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1))))
def test_there_is_always_a_thread_and_never_more_than_all(n_threads: int, decodes: list[tuple[float, float]]) -> None:
    size = TeamSize(n_threads)
    for seconds, waited in decodes:
        assert 1 <= size.took(seconds, min(seconds, waited)) <= n_threads


@given(st.integers(2, 8), st.lists(st.sampled_from([QUICK, HELD_UP])))
def test_a_decode_that_was_held_up_is_followed_by_one_with_fewer_threads(
    n_threads: int, decodes: list[tuple[float, float]]
) -> None:
    size = team_after(n_threads, decodes)
    before = size.now
    assert size.took(*HELD_UP) == max(1, before - 1)


@given(st.integers(2, 8), st.lists(st.sampled_from([QUICK, HELD_UP])))
def test_all_threads_compute_again_once_nothing_holds_them_up(
    n_threads: int, decodes: list[tuple[float, float]]
) -> None:
    size = team_after(n_threads, decodes)
    assert n_threads in [size.took(*QUICK) for _ in range(MOST)]


def test_a_short_wait_is_no_reason_for_fewer_threads() -> None:
    size = TeamSize(2)
    assert size.took(0.003, LEAST_WAIT) == 2
    assert size.took(1.0, 0.1) == 2


def n_with_fewer(size: TeamSize) -> int:
    """Decodes until all threads compute."""
    n = 0
    while size.took(*QUICK) < 2:
        n += 1
    return n + 1


def test_where_all_threads_are_always_held_up_they_are_tried_ever_less_often() -> None:
    size = TeamSize(2)
    tries = []
    for _ in range(8):
        size.took(*HELD_UP)
        tries.append(n_with_fewer(size))
    assert tries[0] == FEW
    assert tries[-1] == MOST
    assert tries == sorted(tries)
    for _ in range(SOON):
        size.took(*QUICK)
    size.took(*HELD_UP)
    assert n_with_fewer(size) == FEW


@dataclass
class FakeContext:
    n_threads: int = 2
    n_set: list[int] = field(default_factory=list)

    def set_n_threads(self, n_threads: int, n_threads_batch: int) -> None:
        assert n_threads == n_threads_batch
        self.n_threads = n_threads
        self.n_set.append(n_threads)


def decode(team: Team, path: Path, waited: int, n_rows: int = 4) -> None:
    """`waited`: nanoseconds."""
    before = int(path.read_text().split()[1])
    team.begin(n_rows)
    path.write_text(f"123456 {before + waited} 7\n")
    team.end()


def test_texts_go_with_a_thread_fewer_and_prompts_with_all(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("1 2 3\n")
    context = FakeContext()
    with Team(context, lambda: True, path) as team:
        decode(team, path, 0)
        assert not context.n_set
        decode(team, path, 10**9)
        decode(team, path, 0)
        assert context.n_threads == 1
        decode(team, path, 10**9, n_rows=FEW_ROWS + 1)
        assert context.n_threads == 2
        decode(team, path, 0)
        assert context.n_threads == 1
    decode(team, path, 10**9)
    assert context.n_threads == 2


def test_all_compute_where_the_system_tells_nothing(tmp_path: Path) -> None:
    context = FakeContext()
    with Team(context, lambda: True, tmp_path / "nothing") as team:
        for _ in range(3):
            team.begin(4)
            team.end()
    assert context.n_threads == 2


def test_all_compute_while_nothing_is_at_work_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("1 2 3\n")
    context, is_contended = FakeContext(), False
    with Team(context, lambda: is_contended, path) as team:
        for _ in range(3):
            decode(team, path, 10**9)
        assert not context.n_set
        is_contended = True
        decode(team, path, 10**9)
        decode(team, path, 10**9)
        assert context.n_threads == 1
        is_contended = False
        decode(team, path, 0)
        assert context.n_threads == 2
