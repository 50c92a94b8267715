"""What a command line makes reach C, or the engine, or the listener: seen at the last step that is ours.

Each observer takes the words and gives named values. Numbers are as C got them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llamabox.bindings import backend, ffi, threadpool
from llamabox.bindings.context import Context
from llamabox.bindings.media.projector import c_params
from llamabox.bindings.model import Model
from llamabox.bindings.sampling.sampler import ChainBuilder
from llamabox.bindings.vocab import Vocab
from llamabox.demo import ensure_demo_model
from llamabox.engine.sampling import plan
from llamabox.errors import ContextError, ModelLoadError
from llamabox.options.commandline import compose, compose_images, parse
from llamabox.server.fields.request import Options, parse_options
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.listener import Listener, hypercorn_config
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.opening import draft_config
from llamabox.workers.text.loading import devices
from llamabox.workers.text.loading.attention import choose_attention
from llamabox.workers.text.loading.contexts import context_params
from llamabox.workers.text.loading.devices import model_params
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.loading.projector import projector_params
from llamabox.workers.text.loading.threads import thread_params
from tests.server.fake_client import INFO, FakeTextClient
from tests.server.harness import text_app

Observer = Callable[..., dict[str, Any]]

SAMPLERS = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
ALL_SAMPLERS = (
    *("--samplers", SAMPLERS, "--repeat-penalty", "1.1", "--dry-multiplier", "0.8", "--typical", "0.9"),
    *("--xtc-probability", "0.5", "--top-nsigma", "1"),
)
"""So that every sampler is there to be changed. What a row says comes after it, and wins."""


class RecordingLib:
    """The library, with every call noted; the functions in `refusing` are noted and give NULL."""

    def __init__(self, native: ffi.Native, refusing: frozenset[str]) -> None:
        self._native = native
        self._refusing = refusing
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._native.lib, name)
        if not callable(value) or not name.startswith(("llama_", "lb_sampler_", "lb_breakers_make")):
            return value

        def call(*arguments: Any) -> Any:
            self.calls.append((name, self._kept(name, arguments)))
            return self._native.ffi.NULL if name in self._refusing else value(*arguments)

        call.__wrapped__ = value  # type: ignore[attr-defined]
        return call

    def _kept(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, of arrays that live no longer than the call their content. Without the vocabulary."""
        match name.removeprefix("llama_sampler_init_"), arguments:
            case "lb_breakers_make", (*_, texts, n):
                return tuple(self._native.ffi.string(text).decode() for text in texts[0:n])
            case "logit_bias", (_, n, pairs):
                return tuple((pair.token, pair.bias) for pair in pairs[0:n])
            case "penalties", (_, *numbers):
                return tuple(numbers)
        return arguments


class RecordingFfi:
    """cffi's door, which knows the types of noted functions as well."""

    def __init__(self, native: ffi.Native) -> None:
        self._native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native.ffi, name)

    def typeof(self, value: Any) -> Any:
        return self._native.ffi.typeof(getattr(value, "__wrapped__", value))


@cache
def native() -> ffi.Native:
    loaded = ffi.load()
    backend.start(loaded)
    return loaded


@cache
def model() -> Model:
    return Model.load(native(), ensure_demo_model(progress=False))


def recording(*refusing: str) -> tuple[ffi.Native, RecordingLib]:
    lib = RecordingLib(native(), frozenset(refusing))
    return ffi.Native(native().prefix, RecordingFfi(native()), lib), lib


def composed(*words: str) -> tuple[TextConfig, ListenConfig, ModelConfig]:
    text, listen, hosted = compose(parse(words, {}))
    return replace(text, model=str(ensure_demo_model(progress=False))), listen, hosted


def fields(struct: Any) -> dict[str, Any]:
    """A C struct's numbers by name."""
    return {
        name: getattr(struct, name) for name, kind in native().ffi.typeof(struct).fields if kind.type.kind != "pointer"
    }


def context(*words: str) -> dict[str, Any]:
    """The llama_context_params that llama_init_from_model is given."""
    text, *_ = composed(*words)
    recorded, lib = recording("llama_init_from_model")
    real = model()
    stand_in = SimpleNamespace(native=recorded, handle=real.handle, path=real.path, vocab=real.vocab)
    flash = choose_attention(text, real, has_gpu=False).flash
    try:
        Context(stand_in, context_params(text, real, flash))  # type: ignore[arg-type]
    except ContextError:
        [(_, (_, params))] = lib.calls[-1:]
        return fields(params)
    raise AssertionError("a context was made")


def model_file(*words: str) -> dict[str, Any]:
    """The llama_model_params that llama_model_load_from_file is given, as on a machine with GPUs."""
    return _model_file(composed(*words)[0])


def draft_model(*words: str) -> dict[str, Any]:
    """The same of the draft model."""
    text, *_ = composed(*words)
    return _model_file(draft_config(text, text.model))


def _model_file(text: TextConfig) -> dict[str, Any]:
    recorded, lib = recording("llama_model_load_from_file")
    has_gpu, devices.has_gpu = devices.has_gpu, lambda native: True
    try:
        Model.load(recorded, text.model, model_params(text, native()))
    except ModelLoadError:
        [params] = [arguments[1] for name, arguments in lib.calls if name == "llama_model_load_from_file"]
    finally:
        devices.has_gpu = has_gpu
    null = native().ffi.NULL
    shares = () if params.tensor_split == null else tuple(params.tensor_split[0:2])
    overridden = "" if params.kv_overrides == null else native().ffi.string(params.kv_overrides[0].key).decode()
    buffers = [] if params.tensor_buft_overrides == null else _tensor_buffers(params.tensor_buft_overrides)
    return {**fields(params), "tensor_split": shares, "kv_overrides": overridden, "tensor_buffers": " ".join(buffers)}


def _tensor_buffers(array: Any) -> list[str]:
    """Patterns and names of buffer types as on the command line, up to the empty pattern."""
    ffi, lib = native().ffi, native().lib
    entries = takewhile(lambda entry: entry.pattern != ffi.NULL, (array[i] for i in count()))
    return [
        f"{ffi.string(entry.pattern).decode()}={ffi.string(lib.ggml_backend_buft_name(entry.buft)).decode()}"
        for entry in entries
    ]


def projector(*words: str) -> dict[str, Any]:
    """The mtmd_context_params that mtmd_init_from_file is given."""
    return fields(c_params(native(), projector_params(composed(*words)[0], native())))


def text_worker(*words: str) -> dict[str, Any]:
    """What the text worker is told."""
    return asdict(composed(*words)[0])


def hosted(*words: str) -> dict[str, Any]:
    """What the model behind the port goes by."""
    return asdict(composed(*words)[2])


def request(*words: str) -> Options:
    """What the engine is asked for a request that says nothing but its prompt."""
    config = composed(*words)[2]
    return parse_options({}, config, config.defaults, INFO)


def generation(*words: str) -> dict[str, Any]:
    """The engine's GenerationParams of such a request."""
    return asdict(request(*words).params)


def sampling(*words: str) -> dict[str, Any]:
    """The SamplingParams of such a request."""
    return asdict(request(*words).params.sampling)


def reply(*words: str) -> dict[str, Any]:
    """What the reply to such a request goes by."""
    return {"ping_interval": request(*words).ping_interval}


def samplers(*words: str) -> dict[str, Any]:
    """Each call that makes a sampler for such a request, by its name without libllama's prefix.

    Also their `order`, and the token that penalties leave alone as `spared`.
    """
    recorded, lib = recording()
    builder = ChainBuilder(recorded, Vocab(recorded, model().vocab.handle))
    for step in plan(request(*ALL_SAMPLERS, *words).params.sampling, seed=5, n_ctx=512).steps:
        builder.add(step.name, *step.arguments)
    builder.build().close()
    [spared] = [given[1] for name, given in lib.calls if name == "lb_sampler_init_except"] or [None]
    prefix = "llama_sampler_init_"
    made: dict[str, Any] = {name.removeprefix(prefix): given for name, given in lib.calls if name.startswith(prefix)}
    made |= {"order": tuple(made), "spared": spared}
    calls = dict(lib.calls)
    if "lb_sampler_init_dry" in calls:
        made["dry"] = (*calls["lb_sampler_init_dry"][1:], *calls["lb_breakers_make"])
    return made


def threads(*words: str) -> dict[str, Any]:
    """The ggml_threadpool_params of decodes, and those of prompts with `batch_` before their names."""
    plain, batch = thread_params(composed(*words)[0])
    found: dict[str, Any] = {}
    for prefix, params in (("", plain), ("batch_", batch)):
        c = threadpool.c_params(native(), params, 2, paused=False)[0]
        found |= {prefix + name: value for name, value in fields(c).items() if name != "cpumask"}
        found[prefix + "cpus"] = tuple(cpu for cpu in range(len(c.cpumask)) if c.cpumask[cpu])
    return found


def text_model(*words: str) -> dict[str, Any]:
    """A loaded text model: what it decoded by itself, and what its engine is like."""
    recorded, lib = recording()
    text, *_ = composed("-c", "256", "-b", "64", "-t", "1", *words)
    with closing(TextModel.load(recorded, text, lambda _: None)) as made:
        return {
            "n_decodes": sum(name == "llama_decode" for name, _ in lib.calls),
            "context_shift": made.engine.context_shift,
            "n_slots": len(made.engine.cache.slots),
            "n_ctx": made.contexts.n_ctx,
            "cont_batching": made.engine.config.cont_batching,
        }


def images(*words: str) -> dict[str, Any]:
    """What the image worker is told."""
    parsed = parse(["--images", "-m", "model.gguf", *words], {})
    text, _, hosted = compose(parsed)
    config = compose_images(parsed, text, hosted)
    assert config is not None
    return asdict(config)


def listener(*words: str) -> dict[str, Any]:
    """What the listener goes by."""
    _, listen, hosted = composed(*words)
    made = Listener(text_app(FakeTextClient(), listen, hosted), listen, [])
    return {
        "keep_alive_timeout": hypercorn_config(listen).keep_alive_timeout,
        "stall_timeout": made.stall_timeout,
        "conn_idle": made.conn_idle,
    }


def routes(*words: str) -> dict[str, Any]:
    """What the app goes by: paths, keys, origins, the largest body."""
    _, listen, hosted = composed(*words)
    app = text_app(FakeTextClient(), listen, hosted)
    paths = {route.path for route in app.routes}  # type: ignore[attr-defined]
    middleware: dict[str, Any] = {one.cls.__name__: one.kwargs for one in app.user_middleware}  # type: ignore[attr-defined]
    return {
        "health": next(path for path in paths if path.endswith("/health") and "v1" not in path),
        "hosts": middleware["HostCheck"]["allowed"],
        "origins": middleware["Cors"]["origins"],
        "keys": tuple(sorted(middleware["Auth"]["keys"])),
        "max_body": listen.max_body,
    }


def source_of(test: str) -> str:
    """The text of a file below tests/ that has a test: `folder/test_x.py::test_y`. Fails where there is none."""
    path, _, name = test.partition("::")
    source = (Path(__file__).parent / path).read_text(encoding="utf-8")
    assert f"def {name.rpartition('::')[2]}(" in source, f"{path} has no test {name}"
    return source
