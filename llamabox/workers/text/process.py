"""The text worker as a process: load, answer, end."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from llamabox.bindings.context import n_nodes
from llamabox.bindings.ffi import Native, build_info
from llamabox.bindings.log import LogPump
from llamabox.bindings.media.projector import Projector
from llamabox.bindings.model import Loading
from llamabox.errors import InvalidRequest, OptionsError
from llamabox.wire.common import Loading as Progress
from llamabox.wire.signs.pulse import Pulse
from llamabox.wire.text import Ready
from llamabox.wire.text_config import TextConfig
from llamabox.wire.worker_end import WorkerEnd
from llamabox.workers.body import Body
from llamabox.workers.text.calls import QuickCalls
from llamabox.workers.text.embedding.desk import EmbeddingDesk
from llamabox.workers.text.embedding.lanes import Lanes
from llamabox.workers.text.grammars.desk import GrammarDesk
from llamabox.workers.text.helpers import Helpers
from llamabox.workers.text.intake import Intake
from llamabox.workers.text.layouts.infill import InfillFormat
from llamabox.workers.text.layouts.pairs import PairFormat
from llamabox.workers.text.links import watch
from llamabox.workers.text.loading.devices import has_gpu, start_backends
from llamabox.workers.text.loading.loader import TextModel
from llamabox.workers.text.loading.threads import has_spare_core, n_threads
from llamabox.workers.text.loop import TextLoop
from llamabox.workers.text.media.desk import EncodingDesk
from llamabox.workers.text.media.encoder import EncoderThread
from llamabox.workers.text.reader import TextReader
from llamabox.workers.text.slots.calls import SlotCalls, written_memory
from llamabox.workers.text.slots.fingerprint import SIZE, Fingerprint, settings_digest

logger = logging.getLogger(__name__)


def answer(body: Body, config: TextConfig, native: Native, pump: LogPump, loading: Loading | None) -> None:
    """Load, where that has not begun, then answer until Shutdown. Raises LlamaboxError where that fails."""
    channel, pulse = body.channel, body.pulse
    reader = TextReader(body)
    reader.start()
    # Closed in order at an orderly end alone. After an error the process ends at once: waiting for what still runs
    # could take for ever.
    owned = ExitStack()
    links = watch(config.rpc_servers)
    # Before the model: loading binds this thread to CPUs, which threads that it starts inherit.
    helpers = Helpers(pulse)
    start = partial(start_encoder, config, reader, pulse)
    begin = helpers.beside.begin
    text, split = load_model(
        native, pump, config, lambda progress: channel.send(Progress(progress)), start, begin, loading
    )
    owned.callback(text.close)
    pulse.watch(lambda: n_nodes(native), has_device=has_gpu(native) or bool(config.rpc_servers))
    vocab, n_ctx = text.model.vocab, text.contexts.n_ctx
    has_rows = None if text.encoder is None else text.encoder.has_rows
    intake = Intake(vocab, pair_format(text), n_ctx, text.projector, has_rows)
    grammars = GrammarDesk(vocab, helpers, reader.tasks.put)
    owned.callback(grammars.close)
    prepare_default(grammars, config)
    calls = QuickCalls(vocab, intake, infill_format(config, text), text.engine.slots)
    reader.serve(intake, calls, grammars)
    fingerprint = fingerprint_of(config, text)
    owned.callback(fingerprint.close)
    owned.callback(helpers.close)  # its threads use all of the above
    digests = [lora.digest for lora in text.loras]
    put = reader.tasks.put
    files = helpers.files
    text.engine.cache.tier.ready.made_by(lambda n_bytes: files.submit(written_memory, n_bytes))
    slots = SlotCalls(text.engine.slots, fingerprint.keys, digests, vocab.n_tokens, files, channel.send, put)
    embedding = embedding_desk(config, text, channel, reader, pulse)
    if embedding is not None:
        owned.callback(embedding.close)
    if links is not None:
        owned.callback(links.close)  # before the model: it ends the process where a connection is closed
    is_spare = has_spare_core(config, text.contexts.main)
    # Behind Ready: a start waits for no grammar, and a model that generates nothing has none.
    at_rest = None if text.contexts.generate is None else grammars.make_ready
    loop = TextLoop(
        *(channel, reader.tasks, text.engine, slots, pulse, embedding, text.encoder),
        has_spare_core=is_spare,
        at_rest=at_rest,
    )
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need look at it again
    channel.send(Ready(replace(text.info(), split=split)))
    loop.run()
    owned.close()


def load_model(
    native: Native,
    pump: LogPump,
    config: TextConfig,
    on_progress: Callable[[float], None],
    start: Callable[[Projector], EncodingDesk],
    before_decode: Callable[[], None],
    loading: Loading | None,
) -> tuple[TextModel, list[dict[str, Any]]]:
    """The model, and where its parts are as ModelInfo says it: known where there is a GPU or an RPC server.

    `start` is called with the projector, if the model has one, and `before_decode` as each decode begins.
    """
    placement = start_backends(config, native)
    if placement is None:
        return TextModel.load(native, config, on_progress, start, before_decode, loading), []

    def report(progress: float) -> None:
        placement.progress(progress)
        on_progress(progress)

    with pump.heard_by(placement.hear):
        text = TextModel.load(native, config, report, start, before_decode, loading)
    split = placement.split({name: tensor.n_bytes for name, tensor in text.model.header.tensors.items()})
    placement.report(split)
    return text, split


def start_encoder(config: TextConfig, reader: TextReader, pulse: Pulse, projector: Projector) -> EncodingDesk:
    """What encodes pictures and sounds, on a thread of its own that runs from now on."""
    thread = EncoderThread(projector, reader.tasks.put, pulse)
    thread.start()
    return EncodingDesk(thread, config.mmproj_cache << 20)


def embedding_desk(
    config: TextConfig, text: TextModel, channel: WorkerEnd, reader: TextReader, pulse: Pulse
) -> EmbeddingDesk | None:
    """The desk that makes vectors, or None where nobody may ask for any."""
    if text.embedder is None:
        return None
    if len(text.poolers) == 1:
        return EmbeddingDesk(text.embedder, channel)
    lanes = Lanes(text.embedder, text.poolers, n_threads(config), reader.tasks.put, pulse)
    return EmbeddingDesk(text.embedder, channel, lanes)


def fingerprint_of(config: TextConfig, text: TextModel) -> Fingerprint:
    """The fingerprint of everything that a slot's saved state depends on."""
    steering = text.steering.key if text.steering else b""
    build = build_info(text.model.native)["build"]
    settings = settings_digest(text.contexts.main, build, dict(config.kv_overrides), steering)
    projector = bytes(SIZE) if text.projector is None else text.projector.digest.digest()[:SIZE]
    return Fingerprint(text.model.header.files, settings, projector)


def prepare_default(grammars: GrammarDesk, config: TextConfig) -> None:
    """Compile what the command line wants all answers to follow. Raises OptionsError where that cannot be."""
    if config.grammar or config.json_schema:
        try:
            grammars.prepare(config.grammar, config.json_schema)
        except InvalidRequest as error:
            option = "--json-schema" if config.json_schema else "--grammar"
            what = error.message.removeprefix(f"Field '{error.field}': ")
            raise OptionsError(f"{option}: {what}") from error


def pair_format(text: TextModel) -> PairFormat:
    """The format of a reranker's questions."""
    return PairFormat(text.model.vocab, text.model.chat_template("rerank"), n_ctx=text.contexts.n_ctx)


def infill_format(config: TextConfig, text: TextModel) -> InfillFormat:
    """The layout of /infill's prompts."""
    vocab = text.model.vocab
    return InfillFormat(vocab, n_batch=config.n_batch, n_ctx=text.contexts.n_ctx, suffix_first=config.spm_infill)
