"""Passages with pictures: each gets its own vector once its rows are there, whatever else happens meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from llamabox import errors
from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.embedding.media_passages import AHEAD, MediaPassage
from llamabox.engine.embedding.passages import Passage
from llamabox.engine.events import Activity, Failed, Vector
from llamabox.engine.request import Media, Prompt, Words, n_cells
from tests.fakes import FakeEncoder, FakePooler, cell_of, digest, vector_of

N_CTX = 24

words = st.lists(st.integers(1, 99), min_size=1, max_size=8).map(lambda tokens: Words(tuple(tokens)))
chunks = st.builds(
    lambda key, n_cells, fewer, is_causal: Media(bytes([key]), n_cells, max(1, n_cells - fewer), is_causal),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(0, 3),
    st.booleans(),
)
prompts = (
    st.lists(st.one_of(words, chunks), min_size=1, max_size=3)
    .map(
        lambda found: (*found, Media(b"\0", 2, 1)) if not any(isinstance(one, Media) for one in found) else tuple(found)
    )
    .filter(lambda found: n_cells(found) <= N_CTX)
)


class Bench:
    """An embedder whose rows come when a test says so."""

    def __init__(self, n_rows: int = 8, n_batch: int = 8, *, at_once: bool = False) -> None:
        self.encoder = FakeEncoder(at_once=at_once)
        self.pooler = FakePooler(n_batch, splits=True)
        self.pooler.encoder = self.encoder
        clock = iter(range(10**9)).__next__
        self.embedder = Embedder(self.pooler, n_ctx=N_CTX, n_rows=n_rows, encoder=self.encoder, clock=clock)
        self.made: list[Vector | Failed] = []

    def submit(self, request_id: str, prompts: Sequence[Prompt], first: int = 0) -> None:
        with_media = [MediaPassage(request_id, first + i, prompt, {}) for i, prompt in enumerate(prompts)]
        self.made += self.embedder.submit([], len(with_media), with_media)

    def text(self, request_id: str, n_tokens: int) -> None:
        self.made += self.embedder.submit([Passage(request_id, 0, tuple(range(1, n_tokens + 1)))], 1)

    def run(self) -> None:
        """To the end of what can be computed now."""
        while not self.embedder.is_idle:
            self.made += self.embedder.step()

    def end(self) -> None:
        """To the end of all."""
        self.run()
        while self.encoder.outstanding:
            self.encoder.make(self.encoder.outstanding[0])
            self.run()
        assert not self.encoder.wanted, "rows are held for nobody"
        activity = self.embedder.activity(Activity())
        assert (activity.n_processing, activity.n_waiting) == (0, 0)

    def vectors(self, request_id: str) -> dict[int, bytes]:
        found = [one for one in self.made if one.request_id == request_id and isinstance(one, Vector)]
        assert len({one.index for one in found}) == len(found), "each once"
        return {one.index: one.data for one in found}


def own_vector(prompt: Prompt) -> bytes:
    cells: list[int] = []
    for segment in prompt:
        if isinstance(segment, Words):
            cells += segment.tokens
        else:
            cells += [cell_of(segment, row) for row in range(segment.n_cells)]
    return vector_of(tuple(cells))


@given(
    st.lists(st.lists(prompts, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(("more", "step", "quick", "rows", "text", "abort")), st.integers(0, 2))),
    st.integers(1, 8),
)
def test_each_gets_its_own_vector_once(requests: list[list[Prompt]], acts: list[tuple[str, int]], n_rows: int) -> None:
    bench = Bench(n_rows)
    waiting = {f"r{i}": list(enumerate(each)) for i, each in enumerate(requests)}
    aborted: dict[str, int] = {}
    n_texts = 0
    for act, which in [*acts, *(("more", i) for i in range(3) for _ in range(3))]:
        request_id = f"r{which % len(requests)}"
        outstanding = bench.encoder.outstanding
        match act:
            case "more" if waiting[request_id] and request_id not in aborted:
                index, prompt = waiting[request_id].pop(0)
                bench.submit(request_id, [prompt], index)
            case "step" | "quick" if not bench.embedder.is_idle:
                bench.made += bench.embedder.step(None if act == "step" else 0.5)
            case "rows" if outstanding:
                bench.encoder.make(outstanding[which % len(outstanding)])
            case "text":
                n_texts += 1
                bench.text(f"text {n_texts}", 1 + which)
            case "abort" if request_id not in aborted:
                bench.embedder.abort(request_id)
                aborted[request_id] = len(bench.made)
    bench.end()
    for i, each in enumerate(requests):
        got = bench.vectors(f"r{i}")
        assert all(got[index] == own_vector(each[index]) for index in got)
        assert f"r{i}" in aborted or len(got) == len(each)
    for number in range(1, n_texts + 1):
        assert len(bench.vectors(f"text {number}")) == 1
    for request_id, n_made in aborted.items():
        assert request_id not in {one.request_id for one in bench.made[n_made:]}


def test_texts_go_on_while_rows_are_made() -> None:
    bench = Bench()
    bench.submit("picture", [(Words((1, 2)), Media(b"a", 6, 6))])
    bench.text("text", 3)
    bench.run()
    assert list(bench.vectors("text")) == [0]
    assert bench.embedder.activity(Activity()).n_waiting == 1
    bench.end()
    assert list(bench.vectors("picture")) == [0]


def test_texts_and_pictures_take_turns() -> None:
    bench = Bench(at_once=True)
    bench.submit("pictures", [(Media(bytes([i]), 5, 5),) for i in range(4)])
    for i in range(4):
        bench.text(f"text {i}", 8)
    bench.run()
    kinds = [one.request_id.split()[0] for one in bench.made]
    assert kinds == ["text", "pictures"] * 4


def test_rows_that_cannot_be_made_end_their_request_alone() -> None:
    bench = Bench()
    bad, good = Media(b"bad", 3, 3), Media(b"good", 3, 3)
    bench.submit("lost", [(good,), (Words((1,)), bad), (good, good)])
    bench.submit("kept", [(good,)])
    bench.encoder.fail(bad, errors.ServerFault("encoding an image failed"))
    bench.end()
    [failed] = [one for one in bench.made if isinstance(one, Failed)]
    assert (failed.request_id, failed.index) == ("lost", 1)
    assert failed.error == errors.to_wire(errors.ServerFault("encoding an image failed"))
    assert bench.vectors("kept") == {0: own_vector((good,))}


def test_a_batch_that_breaks_ends_its_passage_alone() -> None:
    bench = Bench(at_once=True)
    bench.pooler.fails = lambda batch: len(bench.pooler.batches) == 1
    bench.submit("broken", [(Words((1,)), Media(b"a", 3, 3))])
    bench.run()
    bench.pooler.fails = lambda batch: False
    [failed] = bench.made
    assert isinstance(failed, Failed)
    bench.submit("next", [(Words((7,)), Media(b"a", 3, 3))])
    bench.end()
    assert len(bench.vectors("next")) == 1, "what was left of the broken one is in its way"


def test_rows_are_asked_for_ahead_within_bounds() -> None:
    bench = Bench()
    n_cells = N_CTX - 1
    bench.submit("many", [(Media(digest(i).to_bytes(8, "big"), n_cells, n_cells),) for i in range(200)])
    n_ahead = sum(media.n_cells for media in bench.encoder.outstanding)
    assert AHEAD <= n_ahead < AHEAD + n_cells
    bench.embedder.abort("many")
    assert not bench.encoder.wanted


def test_one_that_is_too_long_is_refused() -> None:
    bench = Bench()
    bench.submit("long", [(Media(b"a", 2, 2),), (Words((1,)), Media(b"b", N_CTX, N_CTX))])
    [failed] = bench.made
    assert isinstance(failed, Failed)
    assert f"it has {N_CTX + 1} tokens, and at most {N_CTX} fit" in str(failed.error)
    assert not bench.encoder.wanted
