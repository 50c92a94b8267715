"""Models with heads of multi-token prediction: how well they guess, and that texts stay what they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from llamabox.bindings import ffi
from llamabox.bindings.files.gguf import check_model
from llamabox.bindings.model import Model, ModelParams, type_sizes
from llamabox.demo import ensure_demo_model
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.events import Delta, DraftCounts, Failed, Source, Started
from llamabox.errors import LlamaboxError, ModelLoadError, OptionsError
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.heads.opening import Heads, open_heads
from llamabox.workers.text.loading.contexts import Contexts, open_contexts
from llamabox.workers.text.loading.drafters import head_drafter
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.runner import LlamaRunner
from tests.engine.driver import request
from tests.fakes import FreePrice
from tests.models.drafts.heads import (
    FIRST,
    HEAD,
    next_token,
    write_ignorant,
    write_ignorant_hybrid,
    write_knowing_by_hidden_row,
    write_knowing_by_token,
    write_knowing_hybrid,
)
from tests.models.gguf_edit import Contents, read_contents
from tests.workers.text.drafting.fake_context import CostlessPace

N_CTX = 128
Write = Callable[[Path, Path], Path]

IGNORANT = (write_ignorant, write_ignorant_hybrid)
KNOWING = {write_knowing_by_token: 4, write_knowing_by_hidden_row: 1, write_knowing_hybrid: 1}
"""How many tokens of a draft the head knows."""


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Write], Path]]:
    """Writes each model once."""
    folder = tmp_path_factory.mktemp("heads")
    written: dict[Write, Path] = {}

    def find(write: Write) -> Path:
        if write not in written:
            written[write] = write(folder / f"{write.__name__}.gguf", ensure_demo_model(progress=False))
        return written[write]

    yield find
    for path in written.values():
        path.unlink()


def config_of(path: Path, *, kv_unified: bool = False, spec_n_max: int = 4) -> TextConfig:
    return TextConfig(
        model=str(path),
        n_ctx=3 * N_CTX,
        n_parallel=3,
        n_batch=64,
        n_ubatch=32,
        n_threads=1,
        n_threads_batch=1,
        kv_unified=kv_unified,
        spec_types=("mtp",),
        spec_n_max=spec_n_max,
    )


@dataclass(frozen=True)
class Loaded:
    """A model with its contexts and heads."""

    config: TextConfig
    model: Model
    contexts: Contexts
    heads: Heads


@contextmanager
def loaded(native: ffi.Native, config: TextConfig) -> Iterator[Loaded]:
    with (
        Model.load(native, config.model, ModelParams(mtp=True)) as model,
        open_contexts(config, model) as contexts,
        open_heads(config, model, contexts) as heads,
    ):
        assert heads is not None
        yield Loaded(config, model, contexts, heads)


class Talk:
    """Texts over an engine, with or without the heads."""

    def __init__(self, loaded: Loaded, *, drafts: bool, temperature: float = 0.0) -> None:
        loaded.contexts.main.memory.clear(data=True)
        loaded.heads.cells.cleared()
        self.temperature = temperature
        drafter = head_drafter(loaded.config, loaded.model, loaded.heads)
        drafter.pace = CostlessPace()
        cells = loaded.heads.cells if drafts else None
        runner = LlamaRunner(loaded.contexts.main, mixes=False, is_steady=True, heads=cells)
        shape = EngineConfig(
            n_slots=3,
            n_ctx=N_CTX,
            context_shift=True,
            cont_batching=True,
            slot_similarity=0.5,
            gap_factor=2.0,
            host_budget=1 << 24,
        )
        self.engine = Engine(runner, shape, [drafter] if drafts else [], price=FreePrice())
        self.texts: dict[tuple[str, int], list[int]] = {}
        self.n_cached: dict[tuple[str, int], int] = {}

    def say(self, prompts: dict[str, Sequence[int]], n_predict: int, *, n: int = 1) -> None:
        for i, (name, tokens) in enumerate(prompts.items()):
            sampling: dict[str, object] = {"temperature": self.temperature, "seed": i, "ignore_eos": True}
            self.engine.submit(request(name, list(tokens), sampling, n_predict=n_predict, n=n))
        while not self.engine.is_idle:
            self.step()
        assert self.engine.check_integrity() == []

    def step(self) -> None:
        for event in self.engine.step().events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Delta):
                self.texts.setdefault((event.request_id, event.index), []).extend(event.tokens)
            if isinstance(event, Started):
                self.n_cached[event.request_id, event.index] = event.n_cached

    @property
    def drafted(self) -> DraftCounts:
        [counts] = self.engine.activity().drafts
        assert counts.source is Source.MTP
        return counts


def prompt(start: int, length: int) -> list[int]:
    return [FIRST + 500 + (start * 1009 + 31 * i) % 40_000 for i in range(length)]


def conversation(talk: Talk) -> None:
    """Texts side by side, long prompts, prefixes of others, several of a prompt, an abort, and a context shift."""
    talk.say({"one": prompt(1, 50), "two": prompt(2, 3), "three": prompt(1, 30)}, 20)
    talk.say({"goes on": [*prompt(1, 50), *talk.texts["one", 0], FIRST + 9]}, 10)
    talk.say({"edited": [*prompt(1, 40), FIRST + 5, FIRST + 6]}, 10, n=2)
    talk.engine.submit(request("aborted", prompt(5, 20), {"temperature": talk.temperature}, n_predict=50))
    for _ in range(4):
        talk.step()
    talk.engine.abort("aborted")
    talk.texts.pop(("aborted", 0), None)
    talk.say({"shifted": prompt(6, 20), "beside": prompt(7, 10)}, 2 * N_CTX)


@pytest.mark.parametrize("kv_unified", [False, True], ids=["streams", "pool"])
@pytest.mark.parametrize("write", [*KNOWING, *IGNORANT])
def test_texts_are_those_without_and_heads_that_know_the_next_token_are_always_right(
    native: ffi.Native, path_of: Callable[[Write], Path], write: Write, kv_unified: bool
) -> None:
    n_max = KNOWING.get(write, 4)
    config = config_of(path_of(write), kv_unified=kv_unified, spec_n_max=n_max)
    with loaded(native, config) as model:
        for temperature in (0.0, 0.8) if write in IGNORANT else (0.0,):
            plain, talk = (Talk(model, drafts=drafts, temperature=temperature) for drafts in (False, True))
            conversation(plain)
            model.contexts.main.memory.clear(data=True)
            conversation(talk)
            assert talk.texts == plain.texts
            assert talk.n_cached == plain.n_cached
            counts = talk.drafted
            if write in IGNORANT:
                assert 0 <= counts.n_accepted < counts.n_drafted
                continue
            assert counts.n_accepted == counts.n_drafted
            n_said = sum(map(len, talk.texts.values()))
            least = 0.1 if model.model.is_hybrid else 0.5  # of which two at once are drafted for at most
            assert counts.n_drafted >= n_said * n_max / (n_max + 1) * least
            for name, text in talk.texts.items():
                n_vocab = model.model.vocab.n_tokens
                assert all(next_token(one, n_vocab) == other for one, other in pairwise(text)), name


def test_positions_of_the_heads_cells_are_those_of_the_models(
    native: ffi.Native, path_of: Callable[[Write], Path]
) -> None:
    with loaded(native, config_of(path_of(write_ignorant))) as model:
        conversation(talk := Talk(model, drafts=True))
        assert talk.drafted.n_drafted
        model.heads.cells.take()
        for follower in model.heads.cells.followers:
            last = model.contexts.main.memory.seq_pos_max(follower.seq_id)
            assert follower.n_seen == last + 1
            assert model.heads.context.memory.seq_pos_max(follower.seq_id) in (follower.n_done - 1, -1)


def test_a_loaded_model_drafts_with_its_heads_unless_it_is_told_not_to(
    native: ffi.Native, path_of: Callable[[Write], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = replace(config_of(path_of(write_knowing_by_token)), spec_types=TextConfig(model="").spec_types)
    with TextModel.load(native, config, lambda _: None) as model:
        assert model.drafters == ["text", "mtp"]
    assert "the model drafts with its head of multi-token prediction" in caplog.messages
    with TextModel.load(native, replace(config, spec="off"), lambda _: None) as model:
        assert model.drafters == []
    with TextModel.load(native, replace(config, spec_types=("text",)), lambda _: None) as model:
        assert model.drafters == ["text"]


def without(source: Path, target: Path, *beginnings: str) -> Path:
    """A model without the tensors whose names begin so."""
    contents = read_contents(source)
    kept = {name: entry for name, entry in contents.tensors.items() if not name.startswith(beginnings)}
    assert len(kept) < len(contents.tensors)
    return Contents(contents.pairs, kept).write(target)


def test_heads_that_cannot_be_had_are_named(
    native: ffi.Native, path_of: Callable[[Write], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error where they were asked for, a line in the log where they were not."""
    caplog.set_level(logging.INFO)
    demo = ensure_demo_model(progress=False)
    bare = without(path_of(write_ignorant), tmp_path / "bare.gguf", HEAD)
    for path, why in (
        (demo, "has no heads of multi-token prediction"),
        (bare, "was made without the tensors of its heads"),
    ):
        config = config_of(path)
        with pytest.raises(OptionsError, match=why) as raised:
            TextModel.load(native, config, lambda _: None)
        assert raised.value.message.startswith("--spec-type draft-mtp: ")
        caplog.clear()
        usual = replace(config, spec_types=TextConfig(model="").spec_types)
        with TextModel.load(native, usual, lambda _: None) as model:
            assert model.drafters == ["text"]
        assert any(why in line for line in caplog.messages) == (path is bare)
    bare.unlink()


def test_a_file_of_heads_alone_is_no_model(
    native: ffi.Native, path_of: Callable[[Write], Path], tmp_path: Path
) -> None:
    alone = without(path_of(write_ignorant), tmp_path / "mtp.gguf", "blk.0.", "blk.1.")
    with pytest.raises(ModelLoadError, match="it has the heads of multi-token prediction alone"):
        check_model(alone, type_sizes(native))
    with pytest.raises(LlamaboxError, match="heads of multi-token prediction alone"):
        TextModel.load(native, replace(config_of(alone), spec_types=("model",)), lambda _: None)
    alone.unlink()
