"""Drafts with a real model, libllama's sampling and the default context's kernels: texts stay what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.sampling.guidance import guidance_tokenizer
from llamabox.demo import ensure_demo_model
from llamabox.engine.engine import Engine
from llamabox.engine.events import Delta, Failed, TokenProbs
from llamabox.grammar.constraint import GuidedGrammar
from llamabox.grammar.guidance import schema_grammar
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.runner import LlamaRunner
from tests.engine.driver import engine_config, request
from tests.fakes import FakeDrafter, FreePrice

SCHEMA = """{"type": "object", "properties": {"first_name": {"type": "string", "maxLength": 12}, "last_name": {"type":
"string", "maxLength": 12}, "years_of_age": {"type": "integer", "minimum": 1, "maximum": 99}}, "required":
["first_name", "last_name", "years_of_age"], "additionalProperties": false}"""

STREAMS: tuple[tuple[str, dict[str, object], dict[str, object]], ...] = (
    ("Once upon a time there was", {"temperature": 0.0}, {}),
    ("The capital of France is", {"temperature": 0.2}, {"n_probs": 2}),
    ("def fib(n):", {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}, {"n": 2}),
    ("One two three four", {"temperature": 0.8, "repeat_penalty": 1.1, "frequency_penalty": 0.2}, {"n_probs": 1}),
    ("One two three four", {"dry_multiplier": 0.8, "dry_penalty_last_n": 64}, {}),
    ("A list of fruits:", {"mirostat": 1}, {}),
    ("A list of fruits:", {"mirostat": 2, "mirostat_tau": 4.0}, {"tokens_per_second": 200}),
    ("The sea is", {"temperature": 0.5, "logit_bias": ((28, -5.0), (30, 3.0))}, {}),
    ("The sea is", {"temperature": 0.0}, {"n_probs": 1, "post_sampling_probs": True}),
    ("A person as JSON:", {"temperature": 0.7}, {"grammar": SCHEMA, "n_predict": 60}),
    ("A person as JSON:", {"temperature": 0.0}, {"grammar": SCHEMA, "n_predict": 60, "n_probs": 1}),
)
"""Beginnings, how tokens are chosen, and what else is asked for."""

N_PREDICT = 20
CONSTRAINED = ("r9", "r10")

Texts = dict[tuple[str, int], list[int]]


@pytest.fixture(scope="module")
def model() -> Iterator[TextModel]:
    model_file = str(ensure_demo_model(progress=False))
    config = TextConfig(
        model=model_file, n_ctx=1024, n_parallel=4, n_batch=128, n_ubatch=128, n_threads=1, n_threads_batch=1
    )
    with TextModel.load(ffi.load(), config, lambda _: None) as loaded:
        yield loaded


def say(
    model: TextModel, drafter: FakeDrafter | None, only: int | None = None
) -> tuple[Texts, dict[str, list[TokenProbs]], int]:
    """The texts of all streams, or of one of them alone, their log-probabilities, and in how many steps they came."""
    model.contexts.main.memory.clear(data=True)
    vocab = model.model.vocab
    runner = LlamaRunner(model.contexts.main, mixes=False, is_steady=bool(backend.kernels(model.model.native)))
    drafters = [] if drafter is None else [drafter]
    engine = Engine(runner, engine_config(n_slots=4, n_ctx=model.contexts.n_ctx), drafters, price=FreePrice())
    grammar = GuidedGrammar(schema_grammar(SCHEMA), guidance_tokenizer(vocab))
    texts: Texts = {}
    probs: dict[str, list[TokenProbs]] = {}
    for i, (beginning, sampling, fields) in enumerate(STREAMS):
        if only not in (None, i):
            continue
        tokens = tuple(vocab.tokenize(beginning, add_special=True, parse_special=True))
        asked = {"n_predict": N_PREDICT, **fields}
        constraint = grammar if asked.pop("grammar", None) else None
        engine.submit(request(f"r{i}", tokens, {"seed": i, **sampling}, constraint, **asked))
        texts |= {(f"r{i}", index): [] for index in range(int(str(fields.get("n", 1))))}
        probs[f"r{i}"] = []
    n_steps = 0
    while not engine.is_idle:
        n_steps += 1
        time.sleep(min(engine.rest(), 1.0))
        for event in engine.step().events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Delta):
                texts[event.request_id, event.index] += event.tokens
                probs[event.request_id] += event.probs or []
    assert engine.check_integrity() == []
    return texts, probs, n_steps


def test_texts_and_their_log_probabilities_are_those_without_drafts_to_the_bit(model: TextModel) -> None:
    """Rows of a draft, beside lone rows of others, come out as each would alone: our kernels keep that property."""
    texts, probs, n_steps = say(model, None)
    assert min(map(len, texts.values())) > 10
    may_draft = bool(backend.kernels(model.model.native))  # ggml's own compute a run by other means than a row
    for n_right in (4, -1, 0):
        drafter = FakeDrafter(texts, n_right=n_right)
        found, found_probs, n_drafted_steps = say(model, drafter)
        assert found == texts
        assert found_probs == probs
        assert (drafter.n_drafted > 0) == may_draft
        if n_right == 4 and may_draft:
            assert n_drafted_steps < 0.6 * n_steps
            assert all(drafter.came[key] > 0 for key in texts if key[0] not in ("r8", *CONSTRAINED))
    for request_id in CONSTRAINED:  # with a mask for each row they have drafts when they are alone
        drafter = FakeDrafter(texts, n_right=4)
        found, found_probs, _ = say(model, drafter, only=int(request_id[1:]))
        assert found == {(request_id, 0): texts[request_id, 0]}
        assert found_probs == {request_id: probs[request_id]}
        assert (drafter.came[request_id, 0] > 0) == may_draft
