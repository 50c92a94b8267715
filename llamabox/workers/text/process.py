"""The text worker as a process: configure, load, serve, end."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llamabox.bindings.context import n_nodes
from llamabox.bindings.ffi import Native, build_info, load
from llamabox.bindings.log import LogPump
from llamabox.bindings.threadpool import spin_environment
from llamabox.errors import InvalidRequest, LlamaboxError, OptionsError, to_wire
from llamabox.log import entries as log
from llamabox.wire.common import LoadFailed, Loading
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Configure, Ready
from llamabox.wire.text_config import TextConfig
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.escape import end_on_escape
from llamabox.workers.orphan import die_with_parent
from llamabox.workers.sigterm import watch_sigterm
from llamabox.workers.text.beside import Beside
from llamabox.workers.text.calls import QuickCalls
from llamabox.workers.text.embedding.desk import EmbeddingDesk
from llamabox.workers.text.embedding.lanes import Lanes
from llamabox.workers.text.grammars.desk import GrammarDesk
from llamabox.workers.text.intake import Intake
from llamabox.workers.text.links import watch
from llamabox.workers.text.loading.devices import start_backends
from llamabox.workers.text.loading.loader import (
    TextModel,
    has_gpu,
    has_spare_core,
    infill_format,
    pair_format,
    thread_params,
)
from llamabox.workers.text.loop import Loop, Reader
from llamabox.workers.text.slots.calls import SlotCalls
from llamabox.workers.text.slots.fingerprint import Fingerprint, settings_digest

logger = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0005
"""Seconds after which the reader gives the interpreter back to the engine, which wants it as soon as a decode ends."""


def run(fd: int) -> int:
    """The whole life of the worker whose socket is `fd`, with SIGTERM blocked. Returns the exit code."""
    die_with_parent()
    end_on_escape()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server, which stops us in order
    sys.setswitchinterval(SWITCH_INTERVAL)
    channel = WorkerEnd.from_fd(fd)
    stopping = threading.Event()
    watch_sigterm(channel, stopping)
    first = channel.receive()
    if first is None:
        return 0
    assert isinstance(first, Configure)
    log.setup(first.config.verbosity, first.config.log_colors, as_json=first.config.log_json)
    try:
        return serve(channel, first.config, stopping)
    except LlamaboxError as error:
        channel.send(LoadFailed(to_wire(error)))
        stopping.set()
        channel.close()
        return 1


def serve(channel: WorkerEnd, config: TextConfig, stopping: threading.Event) -> int:
    """Load, then answer until Shutdown. Raises what keeps it from loading."""
    pulse = Pulse(channel, config.hang_timeout)
    pulse.start()
    reader = Reader(channel, stopping, pulse)
    reader.start()
    spin_environment(*thread_params(config), os.environ)
    native = load(config.native)
    links = watch(config.rpc_servers)
    with LogPump(native) as pump:
        # Before the model: loading binds this thread to CPUs, which threads that it starts inherit.
        beside = Beside(pulse)
        text, split = load_model(native, pump, config, lambda progress: channel.send(Loading(progress)))
        pulse.watch(lambda: n_nodes(native), has_device=has_gpu(native) or bool(config.rpc_servers))
        intake = Intake(text.model.vocab, pair_format(text), text.n_ctx)
        grammars = GrammarDesk(text.model.vocab, beside, reader.tasks.put, reader.refuse)
        prepare_default(grammars, config)
        calls = QuickCalls(text.model.vocab, intake, infill_format(config, text), text.engine, text.n_ctx)
        reader.serve(intake, calls, grammars)
        fingerprint = fingerprint_of(config, text)
        digests = [lora.digest for lora in text.loras]
        n_vocab = text.model.vocab.n_tokens
        slots = SlotCalls(text.engine, fingerprint.keys, digests, n_vocab, beside.files, channel.send, reader.tasks.put)
        embedding = embedding_desk(text, channel, reader, pulse)
        is_spare = has_spare_core(config, text)
        loop = Loop(channel, reader, text.engine, slots, pulse, embedding, has_spare_core=is_spare)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again
        channel.send(Ready(replace(text.info(), split=split)))
        loop.run()
        if links is not None:
            links.close()
        beside.close()
        grammars.close()
        if embedding is not None:
            embedding.close()
        fingerprint.close()
        text.close()
    channel.close()
    return 0


def load_model(
    native: Native, pump: LogPump, config: TextConfig, on_progress: Callable[[float], None]
) -> tuple[TextModel, list[dict[str, Any]]]:
    """The model, and where its parts are as ModelInfo says it: known where there are RPC servers."""
    placement = start_backends(config, native)
    if placement is None:
        return TextModel(native, config, on_progress), []

    def report(progress: float) -> None:
        placement.progress(progress)
        on_progress(progress)

    with pump.heard_by(placement.hear):
        text = TextModel(native, config, report)
    split = placement.split({name: tensor.n_bytes for name, tensor in text.model.header.tensors.items()})
    placement.report(split)
    return text, split


def embedding_desk(text: TextModel, channel: WorkerEnd, reader: Reader, pulse: Pulse) -> EmbeddingDesk | None:
    """What makes the vectors, where somebody may ask for some."""
    if text.embedder is None:
        return None
    if len(text.poolers) == 1:
        return EmbeddingDesk(text.embedder, channel)
    lanes = Lanes(text.embedder, text.poolers, text.n_threads, reader.tasks.put, pulse)
    return EmbeddingDesk(text.embedder, channel, lanes)


def fingerprint_of(config: TextConfig, text: TextModel) -> Fingerprint:
    """What a slot's state depends on."""
    steering = text.steering.key if text.steering else b""
    build = build_info(text.model.native)["build"]
    settings = settings_digest(text.context, build, dict(config.kv_overrides), steering)
    return Fingerprint(text.model.header.files, settings)


def prepare_default(grammars: GrammarDesk, config: TextConfig) -> None:
    """Compile what the command line wants all answers to follow. Raises OptionsError where that cannot be."""
    if config.grammar or config.json_schema:
        try:
            grammars.prepare(config.grammar, config.json_schema)
        except InvalidRequest as error:
            option = "--json-schema" if config.json_schema else "--grammar"
            what = error.message.removeprefix(f"Field '{error.field}': ")
            raise OptionsError(f"{option}: {what}") from error
