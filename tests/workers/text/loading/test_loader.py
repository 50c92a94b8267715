"""What the load options do to a real model. Without a GPU, -nkvo, -sm, -ts and -mg only show in what is passed on, as
do --numa on one memory node and --swa-full with a model that has no sliding window."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.bindings import backend, ffi
from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import FlashAttention, Rope, RopeScaling
from llamabox.bindings.log import LogPump
from llamabox.bindings.model import LoadMode, SplitMode
from llamabox.demo import ensure_demo_model
from llamabox.engine.request import GenerationParams, Request, Words
from llamabox.errors import ContextError, ModelLoadError
from llamabox.machine import free_memory
from llamabox.options.commandline import compose, parse
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading import devices, loader
from llamabox.workers.text.loading.contexts import Contexts, context_params
from llamabox.workers.text.loading.devices import model_params
from llamabox.workers.text.loading.loader import TextModel

Load = Callable[..., TextModel]

YARN = ("--rope-scaling", "yarn", "--rope-scale", "2")
CHANGES_LOGITS = {
    "base": ((), ("--rope-freq-base", "50000")),
    "scale": ((), ("--rope-scale", "2")),
    "frequency scale": ((), ("--rope-freq-scale", "0.5")),
    "no scaling": (("--rope-scale", "2"), ("--rope-scale", "2", "--rope-scaling", "none")),
    "yarn": (("--rope-scale", "2"), YARN),
    "yarn: context": (YARN, (*YARN, "--yarn-orig-ctx", "256")),
    "yarn: extrapolation": (YARN, (*YARN, "--yarn-ext-factor", "0.5")),
    "yarn: attention": (
        (*YARN, "--yarn-ext-factor", "0"), (*YARN, "--yarn-ext-factor", "0", "--yarn-attn-factor", "2"),
    ),
    "yarn: fast": (YARN, (*YARN, "--yarn-beta-fast", "8")),
    "yarn: slow": (YARN, (*YARN, "--yarn-beta-slow", "8")),
    "keys": ((), ("-ctk", "q4_0")),
    "values": ((), ("-ctv", "q4_0")),
    "a float of the metadata": ((), ("--override-kv", "llama.attention.layer_norm_rms_epsilon=float:1")),
}  # fmt: skip
"""Options without and with what is tried."""

CHANGES_NOTHING = {
    "linear is what a scale means": (("--rope-scale", "2"), ("--rope-scale", "2", "--rope-scaling", "linear")),
    "the inverse": (("--rope-scale", "4"), ("--rope-freq-scale", "0.25")),
    "unmapped": ((), ("--no-mmap",)),
    "no GPU memory": ((), ("-nkvo", "--swa-full")),
}


def config_of(*words: str) -> TextConfig:
    config, *_ = compose(parse(["-c", "256", "-b", "64", "-t", "1", "--no-warmup", *words], {}))
    return replace(config, model=str(ensure_demo_model(progress=False)))


@pytest.fixture(scope="module")
def native() -> ffi.Native:
    loaded = ffi.load()
    backend.start(loaded)
    return loaded


@pytest.fixture
def load(native: ffi.Native) -> Iterator[Load]:
    made: list[TextModel] = []

    def make(*words: str) -> TextModel:
        made.append(TextModel.load(native, config_of(*words), lambda _: None))
        return made[-1]

    yield make
    for model in made:
        model.close()


@cache
def logits(native: ffi.Native, *words: str) -> NDArray[np.float32]:
    """Behind a text, with a model that is loaded by these words."""
    with closing(TextModel.load(native, config_of(*words), lambda _: None)) as model:
        text = "The capital of France is Paris, and the capital of Italy is"
        batch = NativeBatch(native, 64)
        row = batch.extend(model.model.vocab.tokenize(text, add_special=True, parse_special=True), 0, 0)[-1]
        batch.logits[row] = 1
        model.contexts.main.decode(batch)
        return model.contexts.main.logits(row).copy()


@pytest.mark.parametrize(("before", "after"), CHANGES_LOGITS.values(), ids=CHANGES_LOGITS.keys())
def test_it_changes_what_the_model_says(native: ffi.Native, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    assert np.abs(logits(native, *before) - logits(native, *after)).max() > 0.05


@pytest.mark.parametrize(("before", "after"), CHANGES_NOTHING.values(), ids=CHANGES_NOTHING.keys())
def test_it_changes_nothing_of_what_the_model_says(
    native: ffi.Native, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert np.array_equal(logits(native, *before), logits(native, *after))


def test_overridden_metadata(load: Load) -> None:
    plain = load().info()
    assert (plain.n_ctx_train, plain.add_bos) == (8192, False)
    length, bos = "llama.context_length=int:", "tokenizer.ggml.add_bos_token=bool:true"
    info = load("--override-kv", length + "9", "--override-kv", bos, "--override-kv", length + "100").info()
    assert (info.n_ctx_train, info.add_bos) == (100, True), "the last of two for one key counts"
    assert info.n_ctx == 100, "and a slot has no more than the model was trained for"
    scaled = load("--override-kv", "llama.rope.scaling.type=str:yarn", "--rope-scale", "2").info()
    assert scaled.n_ctx_train == 2 * 8192


def test_an_override_of_the_wrong_type_is_not_taken(load: Load) -> None:
    assert load("--override-kv", "llama.context_length=str:100").info().n_ctx_train == 8192


def test_yarn_raises_what_a_slot_may_hold(load: Load) -> None:
    length = ("--override-kv", "llama.context_length=int:100")
    assert load(*length).info().n_ctx == 100
    assert load(*length, *YARN).info().n_ctx == 200


@pytest.mark.parametrize(
    ("words", "locked", "mapped"),
    [((), False, True), (("--mlock",), True, True), (("--no-mmap",), False, False),
     (("--mlock", "--no-mmap"), True, False)],
)  # fmt: skip
def test_how_the_file_is_held(
    native: ffi.Native,
    load: Load,
    caplog: pytest.LogCaptureFixture,
    words: tuple[str, ...],
    locked: bool,
    mapped: bool,
) -> None:
    """Where this user may not lock so much, the model is served all the same, and the log says that it is not held."""
    n_bytes = ensure_demo_model(progress=False).stat().st_size
    is_refused = locked and not may_lock(n_bytes)
    # Other tests of this process may hold the same file, so what counts is what this load adds.
    locked_before, mapped_before = n_locked(), n_mapped()
    with LogPump(native):
        load(*words)
    n_new = n_locked() - locked_before
    n_refused = sum(int(n) for n in re.findall(r"failed to mlock (\d+)-byte buffer", caplog.text))
    if not is_refused:  # else it is a part at most
        assert (n_new << 10) + n_refused > n_bytes * 2 // 3 if locked else n_new == 0
    # Of a buffer that it allocated, libllama locks whole pages from an address amid one, and so a page behind its end.
    # Linux refuses all of it where that page cannot be read, such as the guard of a thread's stack.
    assert ("failed to mlock" in caplog.text) == is_refused or (n_refused and locked and not mapped)
    assert (n_mapped() > mapped_before) == mapped


def may_lock(n_bytes: int) -> bool:
    """Tried, because it depends on a right as well as on the limit, and on what is locked already."""
    libc = ctypes.CDLL(None)
    with mmap.mmap(-1, n_bytes) as room:
        first = ctypes.c_char.from_buffer(room)
        is_locked = libc.mlock(ctypes.byref(first), ctypes.c_size_t(n_bytes)) == 0
        del first  # else the room could not be closed, which unlocks it
    return is_locked


def n_mapped() -> int:
    """Bytes of GGUF files that this process maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if line.endswith(".gguf")]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def n_locked() -> int:
    """KiB of this process that cannot be paged out."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmLck:")[1].split()[0])


def test_quantised_values_need_flash_attention(native: ffi.Native) -> None:
    """The command line refuses it before; this is what is left for a caller of the worker."""
    config = replace(config_of("-ctv", "q8_0"), flash_attn="off")
    with pytest.raises(ContextError, match="quantized V cache requires flash_attn"):
        TextModel.load(native, config, lambda _: None)


def test_a_load_that_fails_closes_what_it_opened(native: ffi.Native, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ContextError("it cannot be computed with")

    opened: list[Contexts] = []
    close = Contexts.close
    monkeypatch.setattr(Contexts, "close", lambda contexts: (opened.append(contexts), close(contexts)))
    monkeypatch.setattr(loader, "warm_up", fail)
    config = replace(config_of("--embeddings"), warmup=True)
    with pytest.raises(ContextError, match="it cannot be computed with"):
        TextModel.load(native, config, lambda _: None)
    [contexts] = opened
    assert contexts.generate is not None
    assert contexts.embed is not None


def test_without_a_gpu_a_split_is_warned_about(
    native: ffi.Native, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda native: False)
    config = config_of("-sm", "row", "-ts", "3/1", "-mg", "1")
    assert model_params(config, native) == model_params(config_of(), native)
    assert [record.message for record in caplog.records] == [
        "-sm, -ts, -mg and --device have no effect: there is no GPU and no RPC server"
    ]


def test_what_a_gpu_is_told(native: ffi.Native, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_gpu", lambda native: True)
    params = model_params(config_of("-sm", "row", "-ts", "3/1", "-mg", "1", "-ngl", "7"), native)
    assert (params.split_mode, params.tensor_split, params.main_gpu) == (SplitMode.ROW, (3.0, 1.0), 1)
    assert (params.n_gpu_layers, params.load_mode) == (7, LoadMode.AUTO)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_gpu_that_may_take_nothing_changes_nothing(
    native: ffi.Native, load: Load, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Was: with `-dev none` beside a GPU, the CPU computed under a GPU's rules: lone rows shared batches with runs."""
    plain = load().contexts.attention
    monkeypatch.setattr(devices, "has_gpu", lambda native: is_there)
    config = config_of("-dev", "none")
    assert load("-dev", "none").contexts.attention == plain
    assert not devices.uses_gpu(config, native)
    assert not devices.offloads(config, native)
    assert devices.uses_gpu(config_of("-ngl", "0"), native) is is_there, "it takes large batches"
    assert model_params(config, native).devices == (() if is_there else None)


def test_more_shares_than_devices_can_be(native: ffi.Native) -> None:
    room = native.lib.llama_max_devices()
    model_params(config_of("-ts", ",".join("1" * (room - 1))), native)
    with pytest.raises(ModelLoadError, match=f"-ts has {room} shares, but there may be {room - 1} at most"):
        model_params(config_of("-ts", ",".join("1" * room)), native)


def test_what_a_context_is_told(load: Load) -> None:
    model = load().model
    plain = context_params(config_of(), model, FlashAttention.AUTO)
    assert (plain.offload_kqv, plain.swa_full, plain.rope) == (True, False, Rope()), "nothing the user did not give"
    config = config_of("-nkvo", "--swa-full", "-ctk", "Q8_0", "--rope-scaling", "none")
    given = context_params(config, model, FlashAttention.ON)
    assert (given.offload_kqv, given.swa_full, given.type_k) == (False, True, "q8_0")
    assert (plain.flash_attn, given.flash_attn) == (FlashAttention.AUTO, FlashAttention.ON)
    assert given.rope == Rope(scaling=RopeScaling.NONE)


@pytest.mark.parametrize("strategy", ["distribute", "isolate", "numactl"])
def test_memory_nodes(native: ffi.Native, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """ggml takes the first strategy of a process, and this one is not to be changed for the tests to come."""
    asked: list[str] = []
    monkeypatch.setattr(loader.backend, "start", lambda native, numa: asked.append(numa))
    TextModel.load(native, config_of("--numa", strategy), lambda _: None).close()
    assert asked == [strategy]


def test_the_gap_that_prompts_may_open(load: Load) -> None:
    """Whatever times the machine measures: a small gap takes many steps where a large one takes few."""
    n_steps = {}
    for factor in ("1.1", "1000"):
        engine = load("-np", "2", "-c", "1024", "--gap-factor", factor).engine
        engine.submit(Request(request_id="text", prompt=(Words(tuple(range(100, 120))),), params=GenerationParams()))
        for _ in range(20):
            engine.step()
        prompt = Request(
            request_id="prompt", prompt=(Words(tuple(range(200, 400))),), params=GenerationParams(n_predict=1)
        )
        engine.submit(prompt)
        n_steps[factor] = 0
        while len(engine.running) + engine.n_waiting > 1:
            engine.step()
            n_steps[factor] += 1
    assert n_steps["1.1"] > 2 * n_steps["1000"], n_steps


@pytest.mark.parametrize("left", [None, 1 << 40, 100 << 20])
def test_cells_that_may_not_fit_are_warned_about(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left: int | None
) -> None:
    """Of 8,192 tokens of the demo model they take 180 MiB."""
    monkeypatch.setattr(free_memory, "available", lambda: left)
    load("-c", "8192")
    warnings = [record.getMessage() for record in caplog.records if "as it fills" in record.getMessage()]
    if left != 100 << 20:
        assert not warnings
    else:
        [warning] = warnings
        assert warning.startswith("the context takes 180 MiB more as it fills, and 100 MiB are free: a smaller -c")
