"""The law: whatever else happens, each sequence's tokens equal those it would have got alone.

It is tried with LLAMABOX_LAW_EXAMPLES examples, else 400; 20,000 are for a release and for changes to the ledger (and
take longer than pytest lets a test, but with `-o faulthandler_timeout=0`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from unittest import mock

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from llamabox import errors
from llamabox.engine.batch import MediaRows
from llamabox.engine.drafting.price import Price
from llamabox.engine.events import StopType
from llamabox.engine.kv import checkpoints, copy_time
from llamabox.engine.kv.tier import host_tier
from llamabox.engine.request import Media, Request, n_cells
from llamabox.engine.scheduling import admission
from tests.engine.driver import Driver, Transcript, alone, request
from tests.fakes import EOG, FakeDrafter, FakeEncoder, FakeGrammar, FakeMemory, FakeRunner, RandomPrice

EXAMPLES = int(os.environ.get("LLAMABOX_LAW_EXAMPLES", "400"))
N_CTX = 48

Parts = tuple[int | Media, ...]
"""A prompt as `request` takes it."""

WIDE = Media(b"wide", 9, 3)
"""Longer than some steps, and cut by them; fewer positions than cells, as under M-RoPE."""

SQUARE = Media(b"square", 5, 2, is_causal=False)
PLAIN = Media(b"plain", 4, 4, is_causal=False)
DOT = Media(b"dot", 1, 1)
SOUND = Media(b"sound", 6, 6)

# Few distinct tokens and few heads make shared prefixes of every length likely.
heads = st.sampled_from(
    [
        *((), (5,) * 4, (5,) * 9, tuple(range(1, 30)), tuple(range(1, 41))),
        *((5, 5, SOUND, 5), (1, 2, SQUARE), (WIDE, WIDE, 5, 5), (*range(1, 20), PLAIN, 5, SQUARE, WIDE)),
    ]
)


def at_most(parts: Seq[int | Media], n_most: int) -> Parts:
    """As many of the `parts` as have no more cells than `n_most`."""
    n_cells = list(accumulate(part.n_cells if isinstance(part, Media) else 1 for part in parts))
    return tuple(parts[: sum(n <= n_most for n in n_cells)])


words = st.lists(st.integers(1, 3), min_size=1, max_size=7).map(tuple)
tails = words | st.lists(st.integers(1, 3) | st.sampled_from([SQUARE, PLAIN, DOT, SOUND]), min_size=1, max_size=7).map(
    lambda parts: at_most(parts, 7)
)

grammars = st.builds(
    FakeGrammar,
    seed=st.integers(0, 2),
    n_tokens=st.sampled_from([0, 1, 12, 100]),
    period=st.sampled_from([1, 2, 7, 60]),
    forces=st.booleans(),
    may_end=st.booleans(),
    fails_at=st.sampled_from([-1, -1, -1, 0, 5]),
)


@st.composite
def asks(draw: st.DrawFn) -> dict[str, object]:
    """One request's parameters."""
    prompt = draw(heads) + draw(tails)
    has_media = any(isinstance(part, Media) for part in prompt)
    return {
        "prompt": prompt,
        "n": draw(st.sampled_from([1, 1, 1, 2, 3])),
        "n_predict": draw(st.sampled_from([0, 1, 5, 20, 100])),
        "n_keep": draw(st.sampled_from([-1, 0, 3])),
        "n_discard": draw(st.sampled_from([0, 0, 2])),
        "n_least": draw(st.sampled_from([0, 0, 1, 4])),
        "stop_tokens": draw(st.sampled_from([(), (), (1, 7), tuple(range(30, 80))])),
        "n_probs": draw(st.sampled_from([0, 0, 3])),
        "n_prompt_probs": 0 if has_media else draw(st.sampled_from([0, 0, 0, 2])),
        "return_progress": draw(st.booleans()),
        "post_sampling_probs": draw(st.booleans()),
        "cache_prompt": draw(st.booleans()),
        "grammar": draw(st.none() | grammars),
        "late": draw(st.booleans()),
        "id_slot": draw(st.sampled_from([-1, -1, -1, 0])),
        "lora": draw(st.sampled_from([(), (), ((0, 1.0),), ((0, 0.5),), ((0, 1.0), (1, -2.0))])),
        "n_cache_reuse": draw(st.sampled_from([0, 0, 0, 2])),
        "tokens_per_second": draw(st.sampled_from([0, 0, 0, 20, 300])),
        "sampling": {
            "temperature": draw(st.sampled_from([0.0, 1.0])),
            "seed": draw(st.integers(0, 3)),
            "repeat_penalty": draw(st.sampled_from([1.0, 1.3])),
            "ignore_eos": draw(st.booleans()),
        },
    }


actions = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), asks()), st.tuples(st.just("abort"), st.integers(0, 9)), st.just(("step", 0))
    ),
    min_size=1,
    max_size=30,
)


@st.composite
def returns(draw: st.DrawFn) -> list[tuple[str, object]]:
    """More conversations than slots, and each is taken up again later: what slots give up is wanted back."""
    chunks = st.sampled_from([(), (SQUARE,), (SQUARE,), (WIDE, 4)])
    prompts = [(*[talker] * draw(st.integers(6, 20)), *draw(chunks), *draw(tails)) for talker in range(10, 18)]
    script: list[tuple[str, object]] = []
    for prompt in draw(st.lists(st.sampled_from(prompts), min_size=6, max_size=16)):
        script.append(("submit", {"prompt": prompt, "n_predict": draw(st.sampled_from([1, 5]))}))
        script.append(draw(st.sampled_from([("step", 0), ("rest", 0), ("rest", 0)])))
    return script


@st.composite
def crowds(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Requests that come together behind one beginning, which one of them computes."""
    head: Parts = draw(st.sampled_from([(), (), (SQUARE,), (WIDE,)])) + tuple(range(1, draw(st.integers(12, 40))))
    head = at_most(head, 39)
    script: list[tuple[str, object]] = []
    for tail in draw(st.lists(tails, min_size=2, max_size=8)):
        n = draw(st.sampled_from([1, 2, 2]))
        script.append(("submit", {"prompt": head + tail, "n": n, "n_predict": draw(st.sampled_from([1, 5, 20]))}))
        script += [("step", 0)] * draw(st.sampled_from([0, 0, 0, 1, 3]))
    return script


@st.composite
def gatherings(draw: st.DrawFn) -> list[tuple[str, object]]:
    """More conversations than slots, most with one beginning; then some start and others come back in one step.

    So it comes about that a slot which is to be copied is the one that is to be given up.
    """
    head: Parts = tuple(range(1, 9 + draw(st.integers(0, 4)))) + draw(st.sampled_from([(), (), (PLAIN,)]))
    prompts = [head + (talker,) * draw(st.integers(12, 24)) for talker in range(10, 16)]
    prompts += [(talker,) * draw(st.integers(16, 30)) for talker in range(16, 18)]
    script: list[tuple[str, object]] = []
    for prompt in draw(st.permutations(prompts)):
        script += [("submit", {"prompt": prompt, "n_predict": 1}), ("rest", 0)]
    for _ in range(draw(st.integers(1, 5))):
        for prompt in draw(st.lists(st.sampled_from(prompts), min_size=2, max_size=4)):
            text = prompt[: draw(st.sampled_from([48, 48, 10, 12]))] + draw(st.sampled_from([(7,), (8, 9)]))
            script.append(("submit", {"prompt": text, "n_predict": draw(st.sampled_from([1, 3]))}))
        script.append(draw(st.sampled_from([("step", 0), ("rest", 0), ("rest", 0)])))
    return script


@st.composite
def long_texts(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Texts that outgrow the context, with media in them that a shift drops or moves."""
    parts = st.sampled_from([1, 2, SQUARE, PLAIN, SOUND, WIDE])
    script: list[tuple[str, object]] = []
    for _ in range(draw(st.integers(1, 4))):
        prompt = (*at_most(draw(st.lists(parts, min_size=1, max_size=8)), N_CTX - 2), 3)
        keep = {"n_keep": draw(st.sampled_from([-1, 0, 3])), "n_discard": draw(st.sampled_from([0, 2]))}
        script.append(("submit", {"prompt": prompt, "n_predict": 60, **keep}))
        script += [("step", 0)] * draw(st.sampled_from([0, 2, 8]))
    return script


@st.composite
def galleries(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Requests with media beside texts, in which a chunk's rows come late, in another order than asked for, or not."""
    parts = st.sampled_from([1, 2, SQUARE, PLAIN, SOUND, WIDE, DOT])
    late = st.tuples(st.sampled_from(["encoded", "broken"]), st.integers(0, 3))
    n_asked = 0
    script: list[tuple[str, object]] = []
    for _ in range(draw(st.integers(1, 4))):
        for media in draw(st.lists(st.lists(parts, min_size=1, max_size=6), min_size=1, max_size=3)):
            n_asked += 1
            n_predict, n = draw(st.sampled_from([1, 5, 20])), draw(st.sampled_from([1, 1, 2]))
            script.append(("submit", {"prompt": (*at_most(media, 30), 3), "n_predict": n_predict, "n": n}))
        script.append(("step", 0))
        others = st.sampled_from([("step", 0), ("step", 0), ("abort", n_asked - 1), ("abort", 0)])
        script += draw(st.lists(late | others, min_size=1, max_size=6))
    return script


@st.composite
def forks(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Texts that outgrow the context behind a beginning that they have in common, so that they share its cells."""
    head: Parts = draw(st.sampled_from([(), (5, PLAIN)])) + tuple(range(1, draw(st.integers(8, 30))))
    script: list[tuple[str, object]] = []
    for _ in range(draw(st.integers(2, 5))):
        prompt = head + draw(st.lists(st.integers(1, 3), min_size=1, max_size=7).map(tuple))
        keep = {"n_keep": draw(st.sampled_from([-1, 0, 3])), "n_discard": draw(st.sampled_from([0, 2, 30]))}
        n, n_predict = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([5, 40, 90]))
        script.append(("submit", {"prompt": prompt, "n": n, "n_predict": n_predict, **keep}))
        script += [("step", 0)] * draw(st.sampled_from([0, 0, 2, 8, 30]))
    return script


@st.composite
def hurries(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Requests whose grammars are compiled while their prompts are computed, in another order, or cannot be."""
    n_asked = 0
    done = st.tuples(st.sampled_from(["compiled", "compiled", "refused"]), st.integers(0, 3))
    script: list[tuple[str, object]] = []
    for _ in range(draw(st.integers(1, 4))):
        for asked in draw(st.lists(asks(), min_size=1, max_size=3)):
            n_asked += 1
            late = draw(st.sampled_from([True, True, False]))
            script.append(("submit", {**asked, "grammar": draw(grammars), "late": late}))
        others = st.sampled_from([("step", 0), ("step", 0), ("abort", n_asked - 1), ("abort", 0)])
        script += draw(st.lists(done | others, min_size=1, max_size=6))
    return script


def memories() -> st.SearchStrategy[dict[str, object]]:
    return st.sampled_from(
        [
            {},
            {"unified": False},
            {"partial_removal": False, "can_shift": False},
            {"partial_removal": False, "can_shift": False, "unified": False},
            {"partial_removal": False, "part_is_all": True, "can_shift": False},
            {"partial_removal": False, "n_rollback": 3, "can_shift": False},
            {"partial_removal": False, "n_rollback": 3, "can_shift": False, "unified": False},
            {"n_window": 6, "can_shift": False},
            {"n_window": 6, "can_shift": False, "unified": False},
            {"can_shift": False},
        ]
    )


@pytest.fixture(autouse=True, scope="module")
def small_scale() -> Iterator[None]:
    """What pays from dozens of cells on does so from a few on here, or it would never happen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_tier, "WORTH_KEEPING", 4)
        patch.setattr(admission, "WORTH_RESTORING", 1)
        patch.setattr(checkpoints, "LEAST_GAP", 2)
        patch.setattr(admission, "WORTH_WAITING", 4)
        patch.setattr(admission, "WORTH_PREPARING", 2)
        patch.setattr(admission, "N_SPARE", 2)
        yield


class WatchedMemory(FakeMemory):
    """Counts what is moved in and out of it."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.met: Counter[str] = Counter()

    def seq_cp(self, source: int, target: int) -> None:
        self.met["a copy between slots"] += 1
        super().seq_cp(source, target)

    def carry_out(self, seq_id: int | None = None) -> None:
        self.met["a decode for the sake of what was put off"] += seq_id is not None
        super().carry_out(seq_id)

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> bytes | memoryview:
        self.met["a checkpoint" if part else "a state in host memory"] += 1
        return super().state_get(seq_id, into, part=part)

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        return len(FakeMemory.state_get(self, seq_id, part=part))

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        self.met["a checkpoint back" if part else "a state back from host memory"] += 1
        self.met["a state back while a copy is put off"] += bool(self._copies)
        is_set = super().state_set(seq_id, state, part=part)
        self.met["a media chunk back from host memory"] += any(isinstance(one.said, tuple) for one in self.of(seq_id))
        self.met["a state back of what another slot holds"] += not part and self._is_elsewhere(seq_id)
        return is_set

    def _is_elsewhere(self, seq_id: int) -> bool:
        mine = [(cell.said, cell.position) for cell in self.of(seq_id)]
        others = {owner for cell in self.cells for owner in cell.owners} - {seq_id}
        return any([(cell.said, cell.position) for cell in self.of(other)][: len(mine)] == mine for other in others)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine and what happens to it."""

    script: list[tuple[str, object]]
    memory: dict[str, object]
    n_slots: int
    n_batch: int
    n_ubatch: int
    context_shift: bool
    cont_batching: bool
    host_budget: int
    tile: int
    mixes: bool
    is_steady: bool
    at_once: bool  # whether the encoder needs no time
    n_right: int | None  # tokens of each draft that will come, see FakeDrafter; None: nothing is drafted
    price: Price | None = None  # of drafts; None: they cost nothing
    is_dear: bool = False  # a decode that copies from stream to stream
    quicker: int = host_tier.QUICKER
    n_pool: int | None = None  # cells that all slots share; None: as many as they can use

    @property
    def has_spare_core(self) -> bool:
        """Drawn with `at_once`, of which no grammar knows anything."""
        return self.at_once


settled = st.builds(
    Case,
    script=actions | returns() | crowds() | gatherings(),
    memory=memories(),
    n_slots=st.integers(3, 5),
    n_batch=st.sampled_from([7, 16, 64]),
    n_ubatch=st.sampled_from([5, 32]),
    context_shift=st.booleans(),
    cont_batching=st.booleans(),
    host_budget=st.sampled_from([0, 5_000, 1_000_000, 1_000_000]),
    tile=st.sampled_from([1, 2, 6]),
    mixes=st.booleans(),
    is_steady=st.booleans(),
    at_once=st.booleans(),
    n_right=st.sampled_from([None, 4, 0, -1]),
    price=st.none() | st.builds(RandomPrice, st.integers(0, 9)),
    is_dear=st.booleans(),
    quicker=st.sampled_from([1, host_tier.QUICKER, 1000]),
)

crossing = st.builds(
    replace, settled, script=gatherings(), memory=st.just({"unified": False}), host_budget=st.just(1_000_000)
)
"""Where copies between streams and states from host memory meet."""

growing = st.builds(
    replace,
    settled,
    script=long_texts(),
    memory=st.sampled_from([{}, {"unified": False}]),
    context_shift=st.just(True),
)
"""Where media are in texts that are shifted."""

sharing = st.builds(replace, settled, script=crowds())
"""Where sequences wait for what another one computes."""

looking = st.builds(replace, settled, script=galleries(), at_once=st.just(False))
"""Where texts run while media are encoded."""

hurried = st.builds(replace, settled, script=hurries())
"""Where grammars come late."""

crowded = st.builds(
    replace,
    settled,
    script=long_texts(),
    memory=st.sampled_from([{}, {"n_window": 6}, {"partial_removal": False, "part_is_all": True}]),
    context_shift=st.just(False),
    n_pool=st.integers(N_CTX + 1, 2 * N_CTX),
)
"""Where a pool has not room for all that could run."""

pressed = st.builds(
    replace,
    settled,
    script=forks() | long_texts(),
    memory=st.just({}),
    context_shift=st.just(True),
    n_pool=st.integers(N_CTX + 1, 2 * N_CTX),
)
"""Where it has no room for a shift, either."""

LOST_ITS_PREFIX = Case(
    script=[("submit", {"prompt": (SOUND, WIDE, SOUND, 3), "n_predict": 60, "n_keep": -1, "n_discard": 0})] * 2,
    memory={"partial_removal": False, "part_is_all": True},
    n_slots=3,
    n_batch=7,
    n_ubatch=5,
    context_shift=False,
    cont_batching=False,
    host_budget=5000,
    tile=1,
    mixes=False,
    is_steady=False,
    at_once=False,
    n_right=None,
    n_pool=N_CTX + 1,
)
"""The second one gives way amid its prompt, and then has to compute what it had found."""

others = settled | crossing | growing | sharing | looking | crowded | pressed
cases = others | hurried


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(case=LOST_ITS_PREFIX)
@given(case=cases)
def test_tokens_equal_those_it_would_have_got_alone(case: Case) -> None:
    for situation in obeyed(case):
        event(situation)


def test_the_law_is_tried_where_sequences_have_to_do_with_each_other() -> None:
    """The same cases in every run: each of these situations comes about in many, or the law above says little."""
    seen = situations(others, 600)
    for situation in (
        "a prefix that was resident",
        "a wait for another's prefix",
        "a wait for a sibling's prefix",
        "a copy between slots",
        "a sequence that gave way",
        "a state in host memory",
        "a state back from host memory",
        "a state back while a copy is put off",
        "a state back of what another slot holds",
        "a checkpoint",
        "a checkpoint back",
        "a draft that came",
        "a draft that did not come",
        "a media chunk that was resident",
        "a media chunk in several batches",
        "a media chunk in a batch of its own",
        "a shift of a text with media",
        "a media chunk back from host memory",
        "a wait of all for the encoder",
        "a step while somebody waits for the encoder",
        "a chunk that was made before one that was asked for earlier",
        "a chunk that could not be made",
        "an abort of one that waits for the encoder",
        "a chunk that was asked for while its text waited for a slot",
    ):
        assert seen[situation] >= 5, (situation, seen)
    seen = situations(hurried, 100)
    for situation in (
        "a wait of all for a grammar",
        "a step while somebody waits for a grammar",
        "a prompt that was computed before its grammar",
        "a grammar that could not be compiled",
        "an abort of one that waits for its grammar",
    ):
        assert seen[situation] >= 5, (situation, seen)


def situations(cases: st.SearchStrategy[Case], n: int) -> Counter[str]:
    """Those that come about in `n` cases, and in how many of them."""
    seen: Counter[str] = Counter()

    @settings(max_examples=n, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def run(case: Case) -> None:
        seen.update(set(obeyed(case)))

    run()
    return seen


def obeyed(case: Case) -> Counter[str]:
    """Try the law. Returns the situations that came about."""
    cost = 1.0 if case.is_dear else copy_time.STREAM_COST
    with mock.patch.object(copy_time, "STREAM_COST", cost), mock.patch.object(host_tier, "QUICKER", case.quicker):
        return _obeyed(case)


def _obeyed(case: Case) -> Counter[str]:
    pool = WatchedMemory(n_cells=case.n_pool or case.n_slots * N_CTX, **case.memory)
    texts: dict[tuple[str, int], list[int]] = {}
    drafter = None if case.n_right is None else FakeDrafter(texts, n_right=case.n_right)
    runner = FakeRunner(
        n_batch=case.n_batch,
        n_ubatch=case.n_ubatch,
        memory=pool,
        tile=case.tile,
        mixes=case.mixes,
        is_steady=case.is_steady,
        has_spare_core=case.has_spare_core,
        marks=frozenset({5}),
    )
    driver = Driver(
        runner,
        [] if drafter is None else [drafter],
        FakeEncoder(at_once=case.at_once),
        case.price,
        n_slots=case.n_slots,
        n_ctx=N_CTX,
        context_shift=case.context_shift,
        cont_batching=case.cont_batching,
        host_budget=case.host_budget,
        checkpoints=checkpoints.CheckpointLimits(n_most=3, distance=4),
    )
    solos: dict[str, dict[int, Transcript]] = {}
    asked: list[Request] = []
    for action, value in case.script:
        if action == "submit":
            fields = dict(value)  # type: ignore[call-overload]
            late = fields.pop("late", False)
            asked.append(request(f"r{len(asked)}", **fields))
            if not asked[-1].params.n_cache_reuse:  # else it asks for cells that others would not have
                solos[asked[-1].request_id] = _alone(asked[-1], case)
            for index in range(asked[-1].params.n):
                solo = solos.get(asked[-1].request_id)
                texts[asked[-1].request_id, index] = [] if solo is None else solo[index].tokens
            driver.submit(asked[-1], late=late)
        elif action == "abort" and isinstance(value, int) and value < len(asked):
            if not all(driver.transcripts[asked[value].request_id, i].is_over for i in range(asked[value].params.n)):
                driver.abort(asked[value].request_id)
        elif action in ("encoded", "broken") and isinstance(value, int):
            driver.encode(value, fails=action == "broken")
        elif action in ("compiled", "refused") and isinstance(value, int):
            driver.compile(value, fails=action == "refused")
        elif action == "rest":
            driver.run_dry()
            driver.check()
        else:
            driver.step()
            driver.check()
    driver.run()
    for one in asked:
        if one.request_id in driver.aborted:
            continue
        if (reason := driver.broken.get(one.request_id)) is not None:
            _check_refused(driver, one, reason)
        else:
            _check_alike(driver, one, solos.get(one.request_id))
    if drafter is not None:
        assert drafter.is_empty()
        for key, transcript in driver.transcripts.items():
            if transcript.finished is not None and driver.engine.may_draft:
                assert drafter.said[key] == transcript.tokens
        driver.met["a draft that came"] += drafter.n_accepted
        driver.met["a draft that did not come"] += drafter.n_drafted - drafter.n_accepted
    return driver.met + pool.met + media_met(driver)


def media_met(driver: Driver) -> Counter[str]:
    """How media chunks were computed."""
    met: Counter[str] = Counter()
    for batch in driver.runner.batches:
        for run in batch.runs:
            if isinstance(run.content, MediaRows):
                met["a media chunk in several batches"] += run.content.start > 0
                met["a media chunk in a batch of its own"] += not run.content.media.is_causal
    return met


def _alone(asked: Request, case: Case) -> dict[int, Transcript]:
    """What it gets where nobody else is, and nothing is drafted."""
    memory = FakeMemory(**case.memory)  # type: ignore[arg-type]
    return alone(asked, memory=memory, n_slots=3, n_ctx=N_CTX, context_shift=case.context_shift)


def _check_alike(driver: Driver, one: Request, solo: dict[int, Transcript] | None) -> None:
    if solo is None:
        ends = {i: driver.transcripts[one.request_id, i] for i in range(one.params.n)}
        for i, end in ends.items():
            is_harmed = (one.request_id, i) in driver.encoder.harmed
            assert end.finished is not None or one.grammar is not None or is_harmed
        return
    for index, expected in solo.items():
        got = driver.transcripts[one.request_id, index]
        if (harm := driver.encoder.harmed.get((one.request_id, index))) is not None:
            _check_harmed(got, expected, harm)
            continue
        assert (got.failed is None) == (expected.failed is None)
        assert got.tokens == expected.tokens
        assert got.text == expected.text
        assert got.probs == expected.probs
        n_told = None  # of a prompt: all, or what its steps told before its grammar failed with the last one
        if got.failed is not None:
            n_told = min(len(got.prompt_probs), len(expected.prompt_probs))
        assert got.prompt_probs[:n_told] == expected.prompt_probs[:n_told]
        _check_progress(got, one, index)
        _check_end(got, one)
        assert len(got.probs) == (len(got.tokens) if one.params.n_probs else 0)
        if got.failed is not None:
            assert one.grammar is not None
            continue
        assert got.finished is not None
        assert expected.finished is not None
        assert got.finished.stop_type == expected.finished.stop_type
        assert got.finished.truncated == expected.finished.truncated


def _check_refused(driver: Driver, one: Request, reason: errors.LlamaboxError) -> None:
    """It was told why, and nothing else."""
    for index in range(one.params.n):
        got = driver.transcripts[one.request_id, index]
        harm = driver.encoder.harmed.get((one.request_id, index), reason)
        assert got.failed is not None
        assert got.failed.error in (errors.to_wire(reason), errors.to_wire(harm))
        assert replace(got, failed=None) == Transcript()


def _check_end(got: Transcript, asked: Request) -> None:
    """No token ends it too early, but where its grammar wants that, or goes on behind one that is to end it."""
    stops, n_least = set(asked.params.stop_tokens), asked.params.n_least
    assert stops.isdisjoint(got.tokens[n_least:-1])
    if asked.grammar is None:
        assert stops.isdisjoint(got.tokens[:n_least])
        assert EOG not in got.tokens[:n_least]
    if got.finished is not None and got.finished.stop_type is StopType.WORD:
        assert got.tokens[-1] in stops


def _check_harmed(got: Transcript, expected: Transcript, harm: errors.LlamaboxError) -> None:
    """It wanted a chunk that could not be made, and was told so, unless its grammar or a token ended it before."""
    assert got.failed is not None
    assert got.tokens == expected.tokens[: len(got.tokens)]
    assert got.failed.error == errors.to_wire(harm) or (
        expected.failed is not None and got.failed.error == expected.failed.error
    )


def _check_progress(got: Transcript, asked: Request, index: int) -> None:
    """From what was cached to the whole prompt, always a step on, and only where it was asked for."""
    processed = [one.n_processed for one in got.progress]
    if not asked.params.return_progress or index:
        assert processed == []
        return
    if got.started is None:  # its grammar failed before the first token
        assert got.failed is not None
        return
    assert (processed[0], processed[-1]) == (got.started.n_cached, n_cells(asked.prompt))
    assert all(earlier < later for earlier, later in pairwise(processed))
    assert {(one.n_prompt, one.timings.cache_n) for one in got.progress} == {
        (n_cells(asked.prompt), got.started.n_cached)
    }
    times = [one.timings.prompt_ms for one in got.progress]
    assert times == sorted(times)
    assert (times[0], got.progress[0].timings.prompt_n) == (0.0, 0)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(asks(), min_size=2, max_size=6),
    failures=st.lists(st.sampled_from([None, None, None, "room", "fatal", "aborted"]), max_size=12),
)
def test_a_failing_decode_harms_only_its_own_batch(asked: list[dict[str, object]], failures: list[str | None]) -> None:
    kinds = {"room": errors.NoRoom, "fatal": errors.DecodeFatal, "aborted": errors.DecodeAborted}
    driver = Driver(FakeRunner(), n_slots=3, n_ctx=N_CTX)
    driver.runner.failures = [None if name is None else kinds[name]("broken") for name in failures]
    late = [one.pop("late") for one in asked]
    own = {"id_slot": -1, "n_cache_reuse": 0}  # who asks for moved cells asks for others than it would have alone
    requests = [request(f"r{i}", **{**one, **own}) for i, one in enumerate(asked)]  # type: ignore[arg-type]
    for one, is_late in zip(requests, late, strict=True):
        driver.submit(one, late=bool(is_late))
    driver.run()
    for one in requests:
        expected = alone(one, n_slots=3, n_ctx=N_CTX)
        for index in range(one.params.n):
            got = driver.transcripts[one.request_id, index]
            if got.failed is None:
                assert got.tokens == expected[index].tokens
            else:
                by_grammar = expected[index].failed  # whatever becomes of the decodes
                assert got.failed.error["error"] == "ServerFault" or (
                    by_grammar is not None and got.failed.error == by_grammar.error
                )
                assert got.tokens == expected[index].tokens[: len(got.tokens)]
