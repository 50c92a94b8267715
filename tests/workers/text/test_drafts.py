"""Drafts with a real model, libllama's sampling and the default context's kernels: texts stay what they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llamabox.bindings import backend, ffi
from llamabox.demo import ensure_demo_model
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.events import Delta, TokenProbs
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.runner import LlamaRunner
from tests.engine.driver import request
from tests.fakes import FakeDrafter

BEGINNINGS = ("Once upon a time there was", "The capital of France is", "def fib(n):", "One two three four")
N_PREDICT = 30

Texts = dict[tuple[str, int], list[int]]


@pytest.fixture(scope="module")
def model() -> Iterator[TextModel]:
    model_file = str(ensure_demo_model(progress=False))
    config = TextConfig(
        model=model_file, n_ctx=1024, n_parallel=4, n_batch=128, n_ubatch=128, n_threads=1, n_threads_batch=1
    )
    with TextModel.load(ffi.load(), config, lambda _: None) as loaded:
        yield loaded


def say(model: TextModel, drafter: FakeDrafter | None) -> tuple[Texts, list[TokenProbs], int]:
    """The texts of four streams, their log-probabilities, and in how many steps they came."""
    model.contexts.main.memory.clear(data=True)
    vocab = model.model.vocab
    runner = LlamaRunner(model.contexts.main, mixes=False, is_steady=bool(backend.kernels(model.model.native)))
    config = EngineConfig(
        n_slots=4,
        n_ctx=model.contexts.n_ctx,
        context_shift=True,
        cont_batching=True,
        slot_similarity=0.5,
        gap_factor=2.0,
    )
    engine = Engine(runner, config, [] if drafter is None else [drafter])
    for i, beginning in enumerate(BEGINNINGS):
        tokens = tuple(vocab.tokenize(beginning, add_special=True, parse_special=True))
        sampling = {"temperature": 0.8, "seed": i, "repeat_penalty": 1.1}
        engine.submit(request(f"r{i}", tokens, sampling, n_predict=N_PREDICT, n_probs=2))
    texts: Texts = {(f"r{i}", 0): [] for i in range(len(BEGINNINGS))}
    probs: dict[str, list[TokenProbs]] = {f"r{i}": [] for i in range(len(BEGINNINGS))}
    n_steps = 0
    while not engine.is_idle:
        n_steps += 1
        for event in engine.step().events:
            if isinstance(event, Delta):
                texts[event.request_id, 0] += event.tokens
                probs[event.request_id] += event.probs or []
    assert engine.check_integrity() == []
    return texts, [each for some in probs.values() for each in some], n_steps


def test_texts_and_their_log_probabilities_are_those_without_drafts_to_the_bit(model: TextModel) -> None:
    """Rows of a draft, beside lone rows of others, come out as each would alone: our kernels keep that property."""
    texts, probs, n_steps = say(model, None)
    assert {len(text) for text in texts.values()} == {N_PREDICT}
    may_draft = bool(backend.kernels(model.model.native))  # ggml's own compute a run by other means than a row
    for n_right in (4, -1, 0):
        drafter = FakeDrafter(texts, n_right=n_right)
        found, found_probs, n_drafted_steps = say(model, drafter)
        assert found == texts
        assert found_probs == probs
        assert (drafter.n_drafted > 0) == may_draft
        if n_right == 4 and may_draft:
            assert n_drafted_steps < n_steps / 3
