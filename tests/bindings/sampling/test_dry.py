"""Our sampler "dry" lowers every logit as libllama's does, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.bindings.context import Context
from llamabox.bindings.sampling.breakers import BreakerTables
from llamabox.bindings.sampling.sampler import CANDIDATE, ChainBuilder
from llamabox.bindings.vocab import Vocab
from tests.bindings.sampling.chains import chain

FEW = ("\n", ":", '"', "*")
BREAKERS = (FEW, ("the cat",), ("Ġ", "e", "ee"), ("\n\n", "<|im_end|>", "世界", "xyz" * 30), ("",), ())
TEXTS = ("the cat sat: ", "on the cat ", "the ca", "\n", '"', "世界", "eee", "<|im_end|>", " the", "t s")


def theirs(vocab: Vocab, values: tuple[float, float, int, int], breakers: tuple[str, ...]) -> Any:
    ffi, lib = vocab.native.ffi, vocab.native.lib
    texts = [ffi.new("char[]", text.encode()) for text in breakers]
    array = ffi.new("const char *[]", texts)
    return lib.llama_sampler_init_dry(vocab.handle, *values, array, len(texts))


def ours(vocab: Vocab, values: tuple[float, float, int, int], breakers: tuple[str, ...]) -> Any:
    table = vocab.breakers.table(tuple(text.encode() for text in breakers))
    return vocab.native.lib.lb_sampler_init_dry(table, *values)


def applied(vocab: Vocab, sampler: Any, logits: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> bytes:
    """Candidates after the sampler."""
    ffi, lib = vocab.native.ffi, vocab.native.lib
    candidates = np.zeros(len(ids), CANDIDATE)
    candidates["id"], candidates["logit"] = ids, logits
    array = ffi.new("llama_token_data_array *")
    array.data = ffi.cast("llama_token_data *", candidates.ctypes.data)
    array.size, array.selected, array.sorted = len(candidates), -1, True
    lib.llama_sampler_apply(sampler, array)
    return candidates.tobytes() + bytes([array.sorted])


@settings(max_examples=40, deadline=None)
@given(
    breakers=st.sampled_from(BREAKERS),
    values=st.tuples(
        st.sampled_from([0.0, 0.3, 0.8, 50.0]), st.sampled_from([0.5, 1.0, 1.75, 1000.0]), st.integers(0, 4),
        st.sampled_from([0, 1, 7, 64, 300]),
    ),
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_every_logit_is_that_of_libllama(
    vocab: Vocab, breakers: tuple[str, ...], values: tuple[float, float, int, int], texts: list[str], seed: int
) -> None:
    lib, random = vocab.native.lib, np.random.default_rng(seed)
    tokens = [t for text in texts for t in vocab.tokenize(text, add_special=False, parse_special=True)]
    made = [theirs(vocab, values, breakers), ours(vocab, values, breakers)]
    some = np.sort(random.choice(vocab.n_tokens, 50, replace=False)).astype(np.int32)
    for ids in (np.arange(vocab.n_tokens, dtype=np.int32), np.union1d(some, tokens).astype(np.int32)):
        logits = random.normal(0, 5, len(ids)).astype(np.float32)
        for token in tokens:
            for sampler in made:
                lib.llama_sampler_accept(sampler, token)
        made.append(lib.llama_sampler_clone(made[1]))
        found = {applied(vocab, sampler, logits, ids) for sampler in made}
        assert len(found) == 1
        tokens = tokens[::-1]  # and on, over what was left behind by the first use
        lib.llama_sampler_free(made.pop())
    for sampler in made:
        lib.llama_sampler_free(sampler)


def test_what_is_known_is_not_looked_up_again(native: Any, vocab: Vocab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up is the dear part: a set of breakers costs once, not for each sampler."""
    tables = BreakerTables(native, vocab.handle)
    words = tuple(f"breaker {i}".encode() for i in range(64))
    assert not tables.knows(words)
    first = tables.table(words)
    assert tables.knows(words)
    monkeypatch.setattr(tables, "_make", pytest.fail)
    for _ in range(100):
        assert tables.table(words) is first


def test_samplers_hold_on_to_breakers_that_are_not_kept(native: Any, vocab: Vocab) -> None:
    tables = BreakerTables(native, vocab.handle)
    [newline] = vocab.tokenize("\n", add_special=False, parse_special=False)
    sampler = native.lib.lb_sampler_init_dry(tables.table((b"\n",)), 0.8, 1.75, 0, 64)
    for i in range(40):  # more than are kept
        tables.table((str(i).encode(),))
    assert not tables.knows((b"\n",))
    for token in (newline, 5, newline, 5):
        native.lib.llama_sampler_accept(sampler, token)
    ids = np.arange(vocab.n_tokens, dtype=np.int32)
    logits = np.frombuffer(applied(vocab, sampler, np.zeros(len(ids), np.float32), ids)[:-1], CANDIDATE)["logit"]
    assert logits[newline] == 0
    native.lib.llama_sampler_free(sampler)


def steps(pick: str, seed: int) -> tuple[tuple[object, ...], ...]:
    last = {"dist": (seed,), "adaptive_p": (0.5, 0.9, seed), "mirostat_v2": (seed, 5.0, 0.1)}[pick]
    return (
        ("logit_bias", ((28, -np.inf), (504, 1.0))),
        ("penalties", 64, 1.3, 0.2, 0.1, False),
        ("dry", 0.8, 1.75, 2, 64, FEW),
        ("top_k", 40),
        ("xtc", 0.5, 0.01, 0, seed),
        ("temp_ext", 0.9, 0.0, 1.0),
        (pick, *last),
    )


@pytest.mark.parametrize("pick", ["dist", "adaptive_p", "mirostat_v2"])
def test_a_copied_chain_is_one_made_afresh_with_its_seed_and_history(context: Context, pick: str) -> None:
    vocab = context.model.vocab
    history = vocab.tokenize("the cat sat on the cat sat on", add_special=False, parse_special=False)
    builder = ChainBuilder(context.native, vocab)
    for name, *arguments in steps(pick, 0):
        builder.add(str(name), *arguments)
    template = builder.template().after(history)
    logits = np.random.default_rng(1).normal(0, 3, vocab.n_tokens).astype(np.float32)
    drawn = []
    for seed in (3, 4):
        copied, fresh = template.copy(seed), chain(context, steps(pick, seed))
        for token in history:
            fresh.accept(token)
        assert copied.names == fresh.names
        assert copied.n_best == fresh.n_best
        chosen = [drawn_tokens(vocab, each.handle, logits) for each in (copied, fresh)]
        assert chosen[0] == chosen[1]
        drawn.append(chosen[0])
        copied.close()
        fresh.close()
    assert drawn[0] != drawn[1]


def drawn_tokens(vocab: Vocab, handle: Any, logits: np.ndarray[Any, Any]) -> list[int]:
    """What the chain chooses from the same logits, 20 times over."""
    ffi, lib = vocab.native.ffi, vocab.native.lib
    found = []
    for _ in range(20):
        candidates = np.zeros(len(logits), CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        array = ffi.new("llama_token_data_array *")
        array.data = ffi.cast("llama_token_data *", candidates.ctypes.data)
        array.size, array.selected = len(candidates), -1
        lib.llama_sampler_apply(handle, array)
        found.append(int(array.data[array.selected].id))
        lib.llama_sampler_accept(handle, found[-1])
    return found
