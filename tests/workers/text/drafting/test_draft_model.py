"""A real draft model beside a real model: who may be one, how well it guesses, and that texts stay what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.model import Model
from llamabox.demo import ensure_demo_model
from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.events import Delta, DraftCounts, Failed
from llamabox.errors import LlamaboxError
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.model import ModelDrafter
from llamabox.workers.text.drafting.opening import DraftModel, check_file, draft_model
from llamabox.workers.text.loading.contexts import Contexts, open_contexts
from llamabox.workers.text.loading.drafters import model_drafter
from llamabox.workers.text.runner import LlamaRunner
from tests.engine.driver import request
from tests.fakes import FreePrice
from tests.models.drafts.variants import write_q4_0, write_renamed
from tests.workers.text.drafting.fake_context import CostlessPace

N_CTX = 64
BEGINNINGS = (
    ("Once upon a time there was a girl", 20),
    ("Once upon a time there was a boy", 20),
    ("def fib(n):", 25),
    ("One two three four", 75),  # more than its context
)


@pytest.fixture(scope="module")
def config() -> TextConfig:
    return TextConfig(
        model=str(ensure_demo_model(progress=False)),
        n_ctx=4 * N_CTX,
        n_parallel=4,
        n_batch=128,
        n_ubatch=128,
        n_threads=1,
        n_threads_batch=1,
        warmup=False,
    )


@pytest.fixture(scope="module")
def target(native: ffi.Native, config: TextConfig) -> Iterator[tuple[Model, Contexts]]:
    with Model.load(native, config.model) as model, open_contexts(config, model) as contexts:
        yield model, contexts


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo model in a coarser form."""
    path = write_q4_0(ensure_demo_model(progress=False), tmp_path_factory.mktemp("drafts") / "demo.Q4_0.gguf")
    yield path
    path.unlink()


def write(
    target: tuple[Model, Contexts],
    drafters: Sequence[Drafter],
    beginnings: Sequence[tuple[str, int]],
    *,
    temperature: float = 0.0,
) -> tuple[list[list[int]], DraftCounts | None]:
    """The texts of streams with these beginnings and lengths, side by side, and how the drafts fared."""
    model, contexts = target
    contexts.main.memory.clear(data=True)
    runner = LlamaRunner(contexts.main, mixes=False, is_steady=bool(backend.kernels(model.native)))
    shape = EngineConfig(
        n_slots=4, n_ctx=N_CTX, context_shift=True, cont_batching=True, slot_similarity=0.5, gap_factor=2.0
    )
    engine = Engine(runner, shape, drafters, price=FreePrice())
    texts: dict[str, list[int]] = {}
    for i, (beginning, n_predict) in enumerate(beginnings):
        tokens = model.vocab.tokenize(beginning, add_special=True, parse_special=True)
        sampling: dict[str, object] = {"temperature": temperature, "seed": i}
        engine.submit(request(f"r{i}", tokens, sampling, n_predict=n_predict))
        texts[f"r{i}"] = []
    while not engine.is_idle:
        for event in engine.step().events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Delta):
                texts[event.request_id] += event.tokens
    assert engine.check_integrity() == []
    counts = engine.activity().drafts
    return list(texts.values()), next(iter(counts), None)


def own_drafter(config: TextConfig, target: tuple[Model, Contexts], draft: DraftModel) -> ModelDrafter:
    """The drafter that the configuration makes, to which time costs nothing."""
    made = model_drafter(config, target[0], draft)
    made.pace = CostlessPace()
    return made


@pytest.mark.parametrize(("form", "least"), [("the model itself", 1.0), ("a coarser form of it", 0.5)])
def test_greedy_texts_are_those_without_a_draft_model_and_their_drafts_are_right(
    config: TextConfig, target: tuple[Model, Contexts], coarse: Path, form: str, least: float
) -> None:
    texts, _ = write(target, [], BEGINNINGS[:-1])
    path = config.model if form == "the model itself" else str(coarse)
    config = replace(config, model_draft=path, spec_n_max=2)
    with draft_model(config, *target) as draft:
        assert draft is not None
        drafter = own_drafter(config, target, draft)
        found, counts = write(target, [drafter], BEGINNINGS[:-1])
        assert found == texts
        assert counts is not None
        assert counts.n_accepted >= least * counts.n_drafted > 0
        for place in drafter.places:
            assert draft.context.memory.seq_pos_max(place.seq_id) == len(place.tokens) - 1


def test_drawn_texts_and_shifted_ones_are_those_without_a_draft_model(
    config: TextConfig, target: tuple[Model, Contexts]
) -> None:
    """A shift leaves cells that remember what was dropped, while the draft model computes what is left anew."""
    texts, _ = write(target, [], BEGINNINGS, temperature=0.8)
    assert [len(text) for text in texts] == [n_predict for _, n_predict in BEGINNINGS]
    config = replace(config, model_draft=config.model, spec_n_max=3)
    with draft_model(config, *target) as draft:
        assert draft is not None
        found, counts = write(target, [own_drafter(config, target, draft)], BEGINNINGS, temperature=0.8)
        assert found == texts
        assert counts is not None
        assert 0 < counts.n_accepted < counts.n_drafted


def open_and_close(config: TextConfig, target: tuple[Model, Contexts]) -> None:
    model, contexts = target
    check_file(config, model.native)
    with draft_model(config, model, contexts):
        pass


def refusal(config: TextConfig, target: tuple[Model, Contexts]) -> str:
    """The line that ends a start."""
    with pytest.raises(LlamaboxError) as raised:
        open_and_close(config, target)
    assert "\n" not in raised.value.message
    return raised.value.message


def test_another_vocabulary_is_refused_with_what_differs(
    config: TextConfig, target: tuple[Model, Contexts], tmp_path: Path
) -> None:
    path = write_renamed(Path(config.model), tmp_path / "other.gguf", "Ġcat".encode(), "Ġqzx".encode())
    message = refusal(replace(config, model_draft=str(path)), target)
    [token] = target[0].vocab.tokenize(" cat", add_special=False, parse_special=False)
    assert message.startswith("--model-draft: ")
    assert message.endswith(f"its token {token} is 'Ġqzx', the model's is 'Ġcat'")
    path.unlink()


def test_a_file_that_is_no_draft_model_is_refused_by_its_name(
    config: TextConfig, target: tuple[Model, Contexts], tmp_path: Path, mmproj: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(Path(config.model).read_bytes()[:100_000])
    for path, what in (
        (tmp_path / "missing.gguf", "there is no such file"),
        (damaged, "more than the file holds"),
        (mmproj, "it is a multimodal projector"),
    ):
        message = refusal(replace(config, model_draft=str(path)), target)
        assert message.startswith(f"--model-draft: {path} cannot be loaded: ")
        assert what in message
