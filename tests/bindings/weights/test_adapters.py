"""LoRA adapters and control vectors on the real library: what they change, and that no file of theirs can do harm."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.ffi import Native
from llamabox.bindings.files.adapter import read_control_vectors
from llamabox.bindings.model import Model
from llamabox.bindings.weights.adapters import Lora, apply_loras, set_control_vector
from llamabox.errors import ModelLoadError
from tests.models.adapters import LAST, LORA, N_EMBD, N_LAYER, drawn, make_control_vector, make_lora, pair, rank_one
from tests.models.gguf_file import FLOAT64, Typed, Value, uint32_array, write_gguf

N_VOCAB = 49152
Tensors = dict[str, NDArray[np.generic]]


@pytest.fixture
def lora(model: Model, tmp_path: Path) -> Iterator[Lora]:
    with Lora(model, make_lora(tmp_path / "a.gguf")) as loaded:
        yield loaded


@pytest.fixture
def steered(lora: Lora, model: Model) -> Iterator[Context]:
    """A context made after the adapter, as it must be."""
    with Context(model, ContextParams(n_ctx=64, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1)) as made:
        yield made


def logits(context: Context) -> NDArray[np.float32]:
    """Those behind a fixed text, evaluated anew."""
    context.memory.clear()
    batch = NativeBatch(context.native, 64)
    tokens = context.model.vocab.tokenize("The capital of France is", add_special=True, parse_special=False)
    rows = batch.extend(tokens, 0, 0)
    batch.logits[rows[-1]] = 1
    context.decode(batch)
    return context.logits(rows[-1]).copy()


def test_an_adapter_acts_as_strongly_as_it_is_scaled_and_not_at_all_at_0(steered: Context, lora: Lora) -> None:
    plain = logits(steered)
    found = {}
    for scale in (1.0, 0.5, 0.0, 0.5):
        apply_loras(steered, [(lora, scale)])
        found.setdefault(scale, logits(steered))
        assert np.array_equal(found[scale], logits(steered))
    apply_loras(steered, [])
    assert np.array_equal(logits(steered), plain)
    assert np.array_equal(found[0.0], plain)
    assert found[1.0].argmax() != plain.argmax()
    distance = {scale: float(np.abs(one - plain).mean()) for scale, one in found.items()}
    assert 0.1 < distance[0.5] < distance[1.0]


def test_adapters_add_up(steered: Context, lora: Lora) -> None:
    apply_loras(steered, [(lora, 0.5)])
    half = logits(steered)
    with Lora(steered.model, lora.path) as again:
        apply_loras(steered, [(lora, 0.25), (again, 0.25)])
        assert np.allclose(logits(steered), half, atol=0.05)
        apply_loras(steered, [])


def test_what_a_file_says_of_itself(model: Model, tmp_path: Path) -> None:
    path = make_lora(tmp_path / "a.gguf", **{"adapter.lora.task_name": "verse" * 100, "adapter.lora.prompt_prefix": ""})
    with Lora(model, path) as loaded:
        assert loaded.meta("adapter.lora.task_name") == "verse" * 100
        assert loaded.meta("adapter.lora.prompt_prefix") == loaded.meta("nothing") == ""
        with Lora(model, make_lora(tmp_path / "b.gguf", seed=2)) as other:
            assert loaded.digest != other.digest
    loaded.close()


HALF = rank_one()[LAST + ".lora_a"]
EMBEDDING = pair("token_embd.weight", np.zeros((N_VOCAB, 1), np.float32), np.zeros((N_EMBD, 1), np.float32))
REFUSED: dict[str, tuple[dict[str, Value | None], Tensors, str]] = {
    "a model": ({"general.type": "model"}, rank_one(), "general.type is 'model'"),
    "no type": ({"general.type": None}, rank_one(), "does not say general.type"),
    "a number as type": ({"general.type": 5}, rank_one(), "does not say general.type"),
    "an array as type": ({"adapter.type": uint32_array(1, 2)}, rank_one(), "does not say adapter.type"),
    "another kind of adapter": ({"adapter.type": "ia3"}, rank_one(), "adapter.type is 'ia3'"),
    "another architecture": ({"general.architecture": "gemma"}, rank_one(), "architecture is 'gemma'"),
    "alpha is no number": ({"adapter.lora.alpha": float("nan")}, rank_one(), "finite 32-bit float"),
    "alpha is infinite": ({"adapter.lora.alpha": float("inf")}, rank_one(), "finite 32-bit float"),
    "alpha is whole": ({"adapter.lora.alpha": 16}, rank_one(), "finite 32-bit float"),
    "alpha is a double": ({"adapter.lora.alpha": Typed(FLOAT64, struct.pack("<d", 1))}, rank_one(), "finite 32-bit"),
    "alpha is an array": ({"adapter.lora.alpha": uint32_array(1)}, rank_one(), "finite 32-bit float"),
    "an activated LoRA": ({"adapter.alora.invocation_tokens": uint32_array(5)}, rank_one(), "aLoRA"),
    "nothing in it": ({}, {}, "no pair"),
    "half a pair": ({}, {LAST + ".lora_a": HALF}, ".lora_b' is missing"),
    "the other half": ({}, {LAST + ".lora_b": HALF}, ".lora_a' is missing"),
    "no pair": ({}, {**rank_one(), LAST: drawn(1, N_EMBD, N_EMBD)}, "neither of a pair"),
    "an unknown tensor": ({}, pair("blk.30.attn_q.weight", HALF, HALF.T), "another model"),
    "too narrow": ({}, pair(LAST, drawn(1, 1, 512), drawn(1, N_EMBD, 1)), r"\[512, 1\]"),
    "too long": ({}, pair(LAST, HALF, drawn(1, N_EMBD + 32, 1)), "does not fit"),
    "not transposed": ({}, pair(LAST, HALF, HALF), "does not fit"),
    "two ranks": ({}, pair(LAST, drawn(1, 2, N_EMBD), drawn(1, N_EMBD, 3)), "does not fit"),
    "a stack": ({}, pair(LAST, drawn(1, 2, 1, N_EMBD), drawn(1, N_EMBD, 1)), "does not fit"),
    "the embedding that is the output too": ({}, EMBEDDING, "the output of this model as well"),
    "the output that is the embedding": ({}, pair("output.weight", HALF, drawn(1, N_VOCAB, 1)), "another model"),
    "whole numbers": ({}, pair(LAST, HALF.astype(np.int32), HALF.T.astype(np.int32)), "type i32"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_with_one_line(model: Model, tmp_path: Path, kind: str) -> None:
    changes, tensors, part = REFUSED[kind]
    values = {key: value for key, value in {**LORA, **changes}.items() if value is not None}
    path = write_gguf(tmp_path / "a.gguf", values, tensors)
    with pytest.raises(ModelLoadError, match=part) as caught:
        Lora(model, path)
    assert caught.value.message.startswith(f"{path} cannot be loaded: ")
    assert "\n" not in caught.value.message


def test_norm_tensors_beside_the_pairs_are_passed_over(model: Model, tmp_path: Path) -> None:
    tensors: Tensors = {**rank_one(), "blk.3.attn_norm.weight": drawn(1, N_EMBD)}
    Lora(model, write_gguf(tmp_path / "a.gguf", LORA, tensors)).close()


def test_half_precision_and_higher_ranks(model: Model, tmp_path: Path) -> None:
    a, b = drawn(1, 8, N_EMBD).astype(np.float16), drawn(2, N_EMBD, 8).astype(np.float16)
    Lora(model, write_gguf(tmp_path / "a.gguf", LORA, pair(LAST, a, b))).close()


@pytest.mark.parametrize("length", [0, 3, 100, 300, 1000, 4000, -1])
def test_a_file_that_is_cut_off_is_refused(model: Model, tmp_path: Path, length: int) -> None:
    path = make_lora(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        Lora(model, path)


def test_missing_files_and_folders(model: Model, tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            Lora(model, path)
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            read_control_vectors(model, [(str(path), 1.0)])


def test_damaged_adapters_are_refused_or_load_but_never_kill(native: Native, model_path: Path, tmp_path: Path) -> None:
    """Random damage to the header, loaded and computed with in a process of its own: an abort is seen as its death."""
    code = """
import sys
from llamabox.bindings import ffi, backend
from llamabox.bindings.weights.adapters import Lora, apply_loras
from llamabox.bindings.context import Context, ContextParams
from llamabox.bindings.model import Model
from llamabox.errors import ModelLoadError
native = ffi.load(); backend.start(native)
model = Model.load(native, sys.argv[1])
loaded = []
for path in sys.argv[2:]:
    try:
        loaded.append(Lora(model, path))
    except ModelLoadError as exc:
        assert "\\n" not in exc.message
with Context(model, ContextParams(n_ctx=64, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1)) as context:
    for lora in loaded:
        apply_loras(context, [(lora, 1.0)])
        context.warm_up()
print(len(loaded))
"""
    data = make_lora(tmp_path / "a.gguf").read_bytes()
    header = data.index(b"lora_b") + 40
    dice = random.Random(7)
    paths = [model_path]
    for number in range(200):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 3])):
            damaged[dice.randrange(4, header)] = dice.randrange(256)
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(damaged)
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_control_vectors_are_summed_and_act_on_their_layers_alone(context: Context, tmp_path: Path) -> None:
    model = context.model
    a = str(make_control_vector(tmp_path / "a.gguf", seed=1, layers=range(10, 15)))
    b = str(make_control_vector(tmp_path / "b.gguf", seed=100, layers=range(12, 20)))
    total = read_control_vectors(model, [(a, 0.5), (b, -1.0), (a, 0.25)])
    assert total.shape == (N_LAYER, N_EMBD)
    expected = np.zeros_like(total)
    for layer in range(10, 15):
        expected[layer - 1] += 0.75 * drawn(1 + layer, N_EMBD)
    for layer in range(12, 20):
        expected[layer - 1] -= drawn(100 + layer, N_EMBD)
    assert np.allclose(total, expected, atol=1e-6)
    assert not read_control_vectors(model, [(a, 1.0), (a, -1.0)]).any()
    assert not read_control_vectors(model, []).any()

    plain = logits(context)
    set_control_vector(context, total, 20, N_LAYER)
    assert np.array_equal(logits(context), plain), "no vector has such a layer"
    set_control_vector(context, total, 1, N_LAYER)
    steered = logits(context)
    assert np.abs(steered - plain).mean() > 0.1
    set_control_vector(context, total, 10, 19)
    assert np.array_equal(logits(context), steered), "both ends are included"
    set_control_vector(context, total, 11, 19)
    assert not np.array_equal(logits(context), steered)
    set_control_vector(context, 0 * total, 1, N_LAYER)
    assert np.array_equal(logits(context), plain)


NO_VECTORS: dict[str, tuple[Tensors, str]] = {
    "nothing in it": ({}, "no tensor direction.N"),
    "another name": ({"blk.1.attn_q.weight": drawn(1, N_EMBD)}, "not called direction.N"),
    "layer 0": ({"direction.0": drawn(1, N_EMBD)}, "from 1"),
    "a layer below all": ({"direction.-1": drawn(1, N_EMBD)}, "from 1"),
    "no number": ({"direction.one": drawn(1, N_EMBD)}, "from 1"),
    "a layer beyond all": ({f"direction.{N_LAYER + 1}": drawn(1, N_EMBD)}, "30 layers"),
    "too narrow": ({"direction.3": drawn(1, N_EMBD - 1)}, "576 32-bit floats"),
    "two dimensions": ({"direction.3": drawn(1, 2, N_EMBD)}, "576 32-bit floats"),
    "half precision": ({"direction.3": drawn(1, N_EMBD).astype(np.float16)}, "576 32-bit floats"),
    "not finite": ({"direction.3": np.full(N_EMBD, np.inf, np.float32)}, "not finite"),
}


@pytest.mark.parametrize("kind", NO_VECTORS)
def test_what_is_no_control_vector_is_refused_with_one_line(model: Model, tmp_path: Path, kind: str) -> None:
    tensors, part = NO_VECTORS[kind]
    path = write_gguf(tmp_path / "c.gguf", {"general.architecture": "controlvector"}, tensors)
    with pytest.raises(ModelLoadError, match=part) as caught:
        read_control_vectors(model, [(str(path), 1.0)])
    assert caught.value.message.startswith(f"{path} cannot be loaded: ")
    assert "\n" not in caught.value.message
