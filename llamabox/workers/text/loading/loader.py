"""From a TextConfig to a model that answers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from llamabox import errors
from llamabox.bindings import backend
from llamabox.bindings.context import Context, ContextParams, FlashAttention, Pooling, Rope, RopeScaling
from llamabox.bindings.ffi import Native, build_info
from llamabox.bindings.files.gguf import Header
from llamabox.bindings.model import LoadMode, Model, ModelParams, SplitMode
from llamabox.bindings.rpc.devices import RPC
from llamabox.bindings.threadpool import ThreadParams, ThreadPools
from llamabox.bindings.weights.adapters import Lora, apply_loras
from llamabox.bindings.weights.mapped import untouched
from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.machine import processors
from llamabox.wire.text_config import ModelInfo, TextConfig
from llamabox.workers.text.embedding.desk import QUICK_ROWS, open_context
from llamabox.workers.text.embedding.pooler import LlamaPooler
from llamabox.workers.text.layouts.infill import InfillFormat
from llamabox.workers.text.layouts.pairs import PairFormat
from llamabox.workers.text.loading.attention import choose_attention
from llamabox.workers.text.loading.cell_memory import warn_if_scarce
from llamabox.workers.text.loading.devices import chosen_devices
from llamabox.workers.text.loading.speed import measure
from llamabox.workers.text.loading.steering import read_steering
from llamabox.workers.text.runner import LlamaRunner

logger = logging.getLogger(__name__)

ANY_LENGTH = 1 << 30
"""Bytes that one token may stand for, where there is no limit."""


class TextModel:
    """Model, context and engine of one text worker. Owns them; `close()` is idempotent.

    The context belongs to the thread that makes this object.
    """

    def __init__(self, native: Native, config: TextConfig, on_progress: Callable[[float], None]) -> None:
        """Raises ModelLoadError or ContextError with one line that says what is wrong."""
        backend.start(native, backend.Numa(config.numa))
        if found := backend.kernels(native):
            logger.info("CPU kernels: %s", found)
        self.model = Model.load(
            native,
            config.model,
            model_params(config, native),
            on_progress=on_progress,
            widen=partial(widening, config, native),
        )
        try:
            self.steering = read_steering(config, self.model)
            self.loras = [Lora(self.model, path) for path, _ in config.lora]
            before = untouched(native)
            self._open_contexts(config, native)
            warn_if_scarce(untouched(native) - before)
        except errors.LlamaboxError:
            self.model.close()  # and the adapters that were loaded with it
            raise
        self.threads = thread_pools(config, self.context)
        if self.threads is not None and self.embedding_context not in (None, self.context):
            self.threads.attach(self.embedding_context)
        if self.steering is not None:
            for context in self._contexts():
                self.steering.apply(context)
        if config.warmup:
            self._warm_up()
        self.tokens_per_second = config.tokens_per_second
        if config.tokens_per_second < 0 and not self.generates:
            self.tokens_per_second = 0
        elif config.tokens_per_second < 0:
            self.tokens_per_second = measure(self.context)
            logger.info("measured: at most %d tokens per second", self.tokens_per_second)
        self.engine = Engine(
            LlamaRunner(self.context, self.loras, tile=self._attention.tile, mixes=self._attention.mixes),
            EngineConfig(
                n_slots=min(config.n_parallel, self.context.n_seq_max),  # less for a model that only embeds
                n_ctx=self.n_ctx,
                context_shift=config.context_shift,
                cont_batching=config.cont_batching,
                slot_similarity=config.slot_similarity,
                gap_factor=config.gap_factor,
                host_budget=config.cache_ram << 20 if config.cache_ram >= 0 else sys.maxsize,
            ),
        )
        self.embedder = self._open_embedder(config, native)
        if self.steering is not None:
            logger.info("control vector on layers %d to %d", self.steering.first, self.steering.last)
        if config.context_shift and not self.engine.context_shift and self.generates:
            logger.info("this model's memory cannot shift: generations end at the context's end")

    def _open_contexts(self, config: TextConfig, native: Native) -> None:
        """One that generates, one that embeds, or both; where only one of them is there, `context` is that one.

        The engine of a model that does not generate never gets a request.
        """
        self._attention = choose_attention(config, self.model, has_gpu=has_gpu(native))
        params = context_params(config, self.model, self._attention.flash)
        self.embedding_context: Context | None = None
        self.lane_contexts: list[Context] = []
        self.n_threads = max(config.n_threads_batch, config.n_threads, 1)
        self.n_ctx = slot_context(config, self.model, params.n_ctx)
        if config.rerank and not self.model.has_classifier:
            raise errors.ModelLoadError(f"{config.model} is no reranker: it has no classifier, which --rerank needs")
        if config.embeddings or config.rerank:
            self.embedding_context = self.context = self._open_embedding(config, native, params)
            if not self.embedding_context.memory.exists:
                n_more = n_lanes(config, native, self.n_ctx) - 1
                self.lane_contexts = [self._open_embedding(config, native, params) for _ in range(n_more)]
            if self.loras:
                logger.warning("embeddings are made by the model alone, without its LoRA adapters")
        self.generates = not config.rerank and self.model.has_decoder
        if self.generates and (self.embedding_context is None or self.embedding_context.memory.exists):
            try:
                self.context = Context(self.model, params)
                self.n_ctx = slot_context(config, self.model, self.context.n_ctx_seq)
            except errors.LlamaboxError:
                if self.embedding_context is not None:
                    self.embedding_context.close()
                raise
        self.generates = self.generates and self.context.memory.exists
        if not self.generates and self.embedding_context is None:
            self.context.close()
            raise errors.ModelLoadError(
                f"{config.model} cannot generate text: give --embeddings to make vectors with it"
            )

    def _open_embedding(self, config: TextConfig, native: Native, params: ContextParams) -> Context:
        rows = quick_rows(config, native)
        # Whole batches of passages have rows enough for what flash attention computes in tiles.
        params = replace(params, flash_attn=FlashAttention(config.flash_attn))
        return open_context(self.model, params, Pooling(config.pooling), n_ctx=self.n_ctx, quick_rows=rows)

    def _contexts(self) -> list[Context]:
        every = [self.context, self.embedding_context, *self.lane_contexts]
        return list(dict.fromkeys(context for context in every if context is not None))

    def _open_embedder(self, config: TextConfig, native: Native) -> Embedder | None:
        """The embedder, and in `poolers` what computes its batches: several where each has a context of its own."""
        self.poolers: list[LlamaPooler] = []
        first = self.embedding_context
        if first is None:
            return None
        is_tiled = not first.memory.exists and config.flash_attn != "off" and not has_gpu(native)
        self.poolers = [LlamaPooler(context, is_tiled=is_tiled) for context in (first, *self.lane_contexts)]
        return Embedder(self.poolers[0], n_ctx=self.n_ctx, n_rows=quick_rows(config, native))

    def _warm_up(self) -> None:
        """With the adapters too: what libllama cannot compute with should end the load, not the first request."""
        if self.loras and self.generates:
            apply_loras(self.context, [(lora, 1.0) for lora in self.loras])
            self.context.warm_up()
            apply_loras(self.context, [])
        for context in self._contexts():
            context.warm_up()

    def info(self) -> ModelInfo:
        """What the server process is told."""
        model, vocab = self.model, self.model.vocab
        return ModelInfo(
            path=str(model.path),
            n_ctx=self.n_ctx,
            n_ctx_total=self.context.n_ctx,
            n_slots=len(self.engine.cache.slots),
            n_ctx_train=model.n_ctx_train,
            n_vocab=vocab.n_tokens,
            n_embd=model.n_embd,
            n_params=model.n_params,
            size=model.size,
            vocab_type=vocab.type,
            ftype=model.ftype,
            description=model.desc,
            chat_template=model.chat_template(),
            bos_token="" if vocab.bos is None else vocab.text(vocab.bos),
            eos_token="" if vocab.eos is None else vocab.text(vocab.eos),
            add_bos=vocab.add_bos,
            context_shift=self.engine.context_shift,
            build=build_info(model.native)["build"],
            eog_tokens=list(vocab.eog_tokens),
            longest_piece=vocab.longest_piece if vocab.type in self._plain_vocabularies() else ANY_LENGTH,
            lora=[
                {
                    "path": str(lora.path),
                    "task_name": lora.meta("adapter.lora.task_name"),
                    "prompt_prefix": lora.meta("adapter.lora.prompt_prefix"),
                }
                for lora in self.loras
            ],
            tokens_per_second=self.tokens_per_second,
            generates=self.generates,
            pooling=self.embedding_context.pooling if self.embedding_context else "",
            n_vector=self.n_vector,
        )

    @property
    def n_vector(self) -> int:
        """Floats of a vector; 0 where none are made."""
        if self.embedding_context is None:
            return 0
        is_rank = self.embedding_context.pooling is Pooling.RANK
        return self.model.n_cls_out if is_rank else self.model.n_embd_out

    def _plain_vocabularies(self) -> tuple[int, int]:
        """Whose tokens stand for all of a text; others leave blanks out, or take a word of any length for one token."""
        lib = self.model.native.lib
        return lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE

    def close(self) -> None:
        if self.threads is not None:
            self.threads.close()
        for context in self._contexts():
            context.adopt()  # from its lane, if it has one
            context.close()
        for lora in self.loras:
            lora.close()
        self.model.close()


def model_params(config: TextConfig, native: Native) -> ModelParams:
    """How to load. Without a GPU nothing can be split: that is warned about, so that one command line fits all."""
    room = native.lib.llama_max_devices()
    if len(config.tensor_split) >= room:
        raise errors.ModelLoadError(f"-ts has {len(config.tensor_split)} shares, but there may be {room - 1} at most")
    plain = ModelParams(
        n_gpu_layers=config.n_gpu_layers,
        load_mode=LOAD_MODES[config.mmap, config.mlock],
        repack=config.repack,
        kv_overrides=tuple(dict(config.kv_overrides).items()),  # libllama would take the first of two
    )
    split = replace(
        plain,
        split_mode=SplitMode(config.split_mode),
        main_gpu=config.main_gpu,
        tensor_split=config.tensor_split,
        devices=chosen_devices(config, native),
    )
    if split != plain and not offloads(config, native):
        logger.warning("-sm, -ts, -mg and --device have no effect: there is no GPU and no RPC server")
        return plain
    return split


def has_gpu(native: Native) -> bool:
    """Whether this machine has one, which decides how things are computed.

    `llama_supports_gpu_offload` does not ask that: it is true of any build with RPC. Nor does the kind of an RPC
    server's device, which ggml calls a GPU whatever it is. They are taken for CPUs: texts are then those that one
    machine writes, and `-fa on` is there for servers that have GPUs.
    """
    return any(kind in ("gpu", "igpu") and name != RPC for name, kind in backend.kinds(native))


def offloads(config: TextConfig, native: Native) -> bool:
    """Whether layers may be computed elsewhere than on the CPUs of this machine."""
    return bool(config.rpc_servers) or has_gpu(native)


def has_spare_core(config: TextConfig, text: TextModel) -> bool:
    """Whether a decode leaves a processor to other threads."""
    return offloads(config, text.model.native) or text.context.n_threads < processors.n_logical()


LOAD_MODES = {
    (True, False): LoadMode.AUTO,
    (True, True): LoadMode.MMAP_MLOCK,
    (False, False): LoadMode.NONE,
    (False, True): LoadMode.MLOCK,
}
"""libllama's name for (mmap, mlock)."""


def context_params(config: TextConfig, model: Model, flash: FlashAttention) -> ContextParams:
    """The context for a configuration. With one sequence a unified pool and a stream of its own are the same."""
    return ContextParams(
        n_ctx=config.n_ctx or model.n_ctx_train,
        n_batch=max(config.n_batch, config.n_parallel),  # every slot may decode in one step
        n_ubatch=min(config.n_ubatch, config.n_batch),
        n_seq_max=config.n_parallel,
        n_threads=config.n_threads,
        n_threads_batch=config.n_threads_batch,
        flash_attn=flash,
        kv_unified=config.kv_unified,
        swa_full=config.swa_full,
        offload_kqv=config.offload_kqv,
        type_k=config.type_k,
        type_v=config.type_v,
        rope=Rope(
            scaling=RopeScaling(config.rope_scaling),
            freq_base=config.rope_freq_base,
            freq_scale=config.rope_freq_scale,
            yarn_ext_factor=config.yarn_ext_factor,
            yarn_attn_factor=config.yarn_attn_factor,
            yarn_beta_fast=config.yarn_beta_fast,
            yarn_beta_slow=config.yarn_beta_slow,
            yarn_orig_ctx=config.yarn_orig_ctx,
        ),
    )


def thread_params(config: TextConfig) -> tuple[ThreadParams, ThreadParams]:
    """How the threads of decodes run, and those of prompts."""
    return (
        ThreadParams(cpus=config.cpu_mask, strict=config.cpu_strict, priority=config.prio, poll=config.poll),
        ThreadParams(
            cpus=config.cpu_mask_batch,
            strict=config.cpu_strict_batch,
            priority=config.prio_batch,
            poll=config.poll_batch,
        ),
    )


def thread_pools(config: TextConfig, context: Context) -> ThreadPools | None:
    """The context's threadpools; None, and ggml's own ways, where no option says anything of them."""
    plain, batch = thread_params(config)
    if plain == batch == ThreadParams():
        return None
    return ThreadPools(context, plain, batch)


def pair_format(text: TextModel) -> PairFormat:
    """How a reranker is asked."""
    return PairFormat(text.model.vocab, text.model.chat_template("rerank"), n_ctx=text.n_ctx)


def infill_format(config: TextConfig, text: TextModel) -> InfillFormat:
    """How /infill lays its prompts out."""
    vocab = text.model.vocab
    return InfillFormat(vocab, n_batch=config.n_batch, n_ctx=text.n_ctx, suffix_first=config.spm_infill)


MAX_WIDENING = 256 << 20
"""Bytes. The matrices of a model of 110 million parameters take 170 more."""


def widening(config: TextConfig, native: Native, header: Header) -> int:
    """Bytes that an encoder's weights may take in addition, for the sake of speed (see bindings.widen).

    What generates reads all weights for each token, and would lose by it.
    """
    causal = header.values.get(f"{header.text('general.architecture')}.attention.causal")
    is_encoder = (config.embeddings or config.rerank) and causal is False
    return MAX_WIDENING if is_encoder and not offloads(config, native) else 0


def quick_rows(config: TextConfig, native: Native) -> int:
    """Tokens of a batch of passages: as many as are computed at once, but no more than makes them quicker."""
    return config.n_ubatch if offloads(config, native) else min(config.n_ubatch, QUICK_ROWS)


MAX_LANES = 8
LANE_TOKENS = 8192
"""Of the longest passages of all lanes together: what a context takes grows with the square of them."""


def n_lanes(config: TextConfig, native: Native, n_ctx: int) -> int:
    """Batches of passages that are computed side by side, a thread each. Options that place threads know of one."""
    plain, batch = thread_params(config)
    if offloads(config, native) or not plain == batch == ThreadParams():
        return 1
    n_threads = max(config.n_threads_batch, config.n_threads, 1)
    return max(1, min(n_threads, MAX_LANES, LANE_TOKENS // n_ctx))


def slot_context(config: TextConfig, model: Model, n_most: int) -> int:
    """Cells of one slot: its share of the context, at most `n_most` and what the model was trained for."""
    n_ctx_train = model.n_ctx_train
    share = (config.n_ctx or n_ctx_train) // config.n_parallel
    n_ctx = min(share, n_most)
    if n_ctx_train and n_ctx > n_ctx_train:
        logger.warning("slots are limited to the %d tokens that the model was trained for", n_ctx_train)
        n_ctx = n_ctx_train
    if n_ctx < 8:
        raise errors.ContextError(
            f"-c {config.n_ctx} over -np {config.n_parallel} slots leaves {n_ctx} tokens a slot: give at least 8 each"
        )
    return n_ctx
