"""Drafts with memories that cannot simply be cut: whatever is rejected, states stay those of what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamabox.bindings import ffi
from llamabox.demo import ensure_demo_model
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.events import Delta, Started, TokenProbs
from llamabox.engine.kv.checkpoints import CheckpointLimits
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.contexts import n_states
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.runner import LlamaRunner
from tests.engine.driver import request
from tests.fakes import FakeDrafter, FreePrice
from tests.models.memories.tiny import write_hybrid, write_sliding

N_PREDICT = 20
BEGINNINGS = ("Once upon a time there was " * 20, "One two three four " * 8)
"""Two: of more at once no recurrent state is taken back, and nothing is drafted."""

Said = tuple[dict[tuple[str, int], list[int]], list[TokenProbs]]


def model_config(model: str) -> TextConfig:
    return TextConfig(model=model, n_ctx=2048, n_parallel=4, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1)


@pytest.fixture(scope="module", params=[write_hybrid, write_sliding], ids=["hybrid", "sliding window"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextModel]:
    write: Callable[[Path, Path], Path] = request.param
    path = write(tmp_path_factory.mktemp("memories") / "model.gguf", ensure_demo_model(progress=False))
    with TextModel.load(ffi.load(), model_config(str(path)), lambda _: None) as loaded:
        yield loaded
    path.unlink()


def test_the_options_limit_checkpoints(model: TextModel) -> None:
    config = replace(model_config(str(model.model.path)), ctx_checkpoints=7, checkpoint_min_step=1000)
    with TextModel.load(model.model.native, config, lambda _: None) as loaded:
        assert loaded.engine.cache.checkpoints.is_on
        assert loaded.engine.cache.checkpoints.limits == CheckpointLimits(7, 1000)


@pytest.mark.parametrize(
    ("words", "n_bytes", "expected"),
    [
        ({}, 0, 8),
        ({"spec": "off"}, 0, 0),
        ({"spec_n_max": 3}, 0, 3),
        ({"n_ubatch": 8}, 0, 6),
        ({}, 10 << 20, 6),
        ({"n_parallel": 8}, 10 << 20, 3),
        ({}, 1 << 30, 0),
    ],
)
def test_states_for_drafts_take_a_quarter_of_the_models_size_at_most(
    words: dict[str, Any], n_bytes: int, expected: int
) -> None:
    assert n_states(replace(model_config("m"), **words), 1000 << 20, n_bytes) == expected


class Talk:
    """Texts over an engine with a drafter, and their log-probabilities."""

    def __init__(self, model: TextModel, drafter: FakeDrafter | None) -> None:
        model.contexts.main.memory.clear(data=True)
        runner = LlamaRunner(model.contexts.main, mixes=False, is_steady=True)
        config = EngineConfig(
            n_slots=4,
            n_ctx=model.contexts.n_ctx,
            context_shift=True,
            cont_batching=True,
            slot_similarity=0.5,
            gap_factor=2.0,
            host_budget=1 << 24,
        )
        self._vocab = model.model.vocab
        self.engine = Engine(runner, config, [] if drafter is None else [drafter], price=FreePrice())
        self.texts: dict[tuple[str, int], list[int]] = {}
        self.probs: dict[tuple[str, int], list[TokenProbs]] = {}
        self.n_cached: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        """Two streams together; then each goes on, twice, and one of these beside a copy of itself."""
        prompts = [tuple(self._vocab.tokenize(text, add_special=True, parse_special=True)) for text in BEGINNINGS]
        for i, prompt in enumerate(prompts):
            self._submit(f"r{i}", prompt, i, 1)
        self._finish()
        for n in (2, 1):
            for i, prompt in enumerate(prompts):
                self._submit(f"r{i} goes on {n}", (*prompt, *self.texts[f"r{i}", 0], 100 + n), i, n)
                self._finish()

    def _submit(self, name: str, tokens: tuple[int, ...], seed: int, n: int) -> None:
        sampling = {"temperature": 0.8, "seed": seed, "repeat_penalty": 1.1}
        self.engine.submit(request(name, tokens, sampling, n_predict=N_PREDICT, n_probs=2, n=n))

    def _finish(self) -> None:
        while not self.engine.is_idle:
            for event in self.engine.step().events:
                key = event.request_id, event.index
                if isinstance(event, Delta):
                    self.texts.setdefault(key, []).extend(event.tokens)
                    self.probs.setdefault(key, []).extend(event.probs or [])
                if isinstance(event, Started):
                    self.n_cached[key] = event.n_cached
        assert self.engine.check_integrity() == []


def test_texts_and_their_log_probabilities_are_those_without_drafts_to_the_bit(model: TextModel) -> None:
    plain = Talk(model, None)
    plain.run()
    assert {len(text) for text in plain.texts.values()} == {N_PREDICT}
    for n_right in (6, 0, -1):
        drafter = FakeDrafter(plain.texts, n_right=n_right, length=6)
        talk = Talk(model, drafter)
        talk.run()
        assert talk.texts == plain.texts
        assert talk.probs == plain.probs
        assert talk.n_cached["r0 goes on 1", 0] == plain.n_cached["r0 goes on 1", 0] > 100
        assert drafter.n_drafted > len(plain.texts) * N_PREDICT / 3
        assert (drafter.n_accepted > 0) == (n_right != 0)
