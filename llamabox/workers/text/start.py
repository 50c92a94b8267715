"""The text worker's first moments: begin to load the model, and import what answers with it meanwhile."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from llamabox.bindings import backend
from llamabox.bindings.ffi import Native, load
from llamabox.bindings.files.gguf import Header
from llamabox.bindings.log import LogPump
from llamabox.bindings.model import Loading, Model
from llamabox.bindings.threadpool import spin_environment
from llamabox.wire.text import Configure
from llamabox.wire.text_config import TextConfig
from llamabox.workers import body
from llamabox.workers.body import Body
from llamabox.workers.text.drafting.heads.wanted import may_have_heads
from llamabox.workers.text.loading.devices import can_offload, model_params, offloads, require_device
from llamabox.workers.text.loading.threads import are_crowded, thread_params

SWITCH_INTERVAL = 0.0005
"""Seconds after which the reader gives the interpreter back to the engine, which wants it as soon as a decode ends."""

MAX_WIDENING = 256 << 20
"""Bytes. The matrices of a model of 110 million parameters take 170 more."""


def run(fd: int) -> int:
    """Live the whole life of a text worker; see body.run."""
    return body.run(fd, Configure, serve)


def serve(body: Body, config: TextConfig) -> None:
    """Load, then answer until Shutdown. Raises LlamaboxError where the model cannot be loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    spin_environment(*thread_params(config), os.environ, crowded=are_crowded(config))
    native = load(config.native)
    with ExitStack() as owned:
        pump = owned.enter_context(LogPump(native))
        loading = begin_early(native, config)
        if loading is not None:
            owned.callback(loading.close)
        # numpy, llguidance and the engine: 0.2 s, most of what libllama takes to read a vocabulary and a small model.
        from llamabox.workers.text.process import answer

        gc.collect()
        gc.freeze()  # the collection before Ready looks at what is made from now on
        answer(body, config, native, pump, loading)


def begin_early(native: Native, config: TextConfig) -> Loading | None:
    """Begin to load the model. None where something else comes first.

    That is: devices that are not this machine's CPUs, another model's file, or weights that are widened, by numpy.
    Raises ModelLoadError, or NativeError where there is no device of the kind that the libraries are built for.
    """
    native.lib.lb_log_forget_error()
    backend.start(native)
    require_device(config, native)
    has_others = config.numa != backend.Numa.DISABLED or config.model_draft or config.embeddings or config.rerank
    return None if has_others or can_offload(config, native) else begin_load(native, config)


def begin_load(native: Native, config: TextConfig) -> Loading:
    """Begin to load the model as the options want it. Raises ModelLoadError or OptionsError."""
    params = replace(model_params(config, native), mtp=may_have_heads(config))
    return Model.begin(native, config.model, params, widen=partial(widening, config, native))


def widening(config: TextConfig, native: Native, header: Header) -> int:
    """Bytes that an encoder's weights may take in addition, for the sake of speed (see bindings.widen).

    What generates reads all weights for each token, and would lose by it. Nor do packed weights gain, which the kernels
    multiply as they are.
    """
    causal = header.values.get(f"{header.text('general.architecture')}.attention.causal")
    is_encoder = (config.embeddings or config.rerank) and causal is False
    gains = not config.repack and (backend.kernels(native) or "").startswith("AVX-512")
    return MAX_WIDENING if is_encoder and gains and not offloads(config, native) else 0
