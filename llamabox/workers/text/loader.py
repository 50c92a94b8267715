"""From a TextConfig to a model that answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llamabox import errors
from llamabox.bindings import backend
from llamabox.bindings._ffi import Native, build_info
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.model import Model, ModelParams
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.runner import LlamaRunner
from llamabox.workers.protocol import ModelInfo, TextConfig

logger = logging.getLogger(__name__)


class TextModel:
    """Model, context and engine of one text worker. Owns them; `close()` is idempotent.

    The context belongs to the thread that makes this object.
    """

    def __init__(self, native: Native, config: TextConfig, on_progress: Callable[[float], None]) -> None:
        """Raises ModelLoadError or ContextError with one line that says what is wrong."""
        backend.start(native)
        self.model = Model.load(
            native, config.model, ModelParams(n_gpu_layers=config.n_gpu_layers), on_progress=on_progress
        )
        try:
            if not self.model.has_decoder:
                raise errors.ModelLoadError(f"{config.model} is an encoder: it embeds text, but cannot generate any")
            self.context = Context(self.model, context_params(config, self.model))
        except errors.LlamaboxError:
            self.model.close()
            raise
        self.n_ctx = slot_context(config, self.context)
        if config.warmup:
            self.context.warm_up()
        self.engine = Engine(
            LlamaRunner(self.context),
            EngineConfig(
                n_slots=config.n_parallel,
                n_ctx=self.n_ctx,
                context_shift=config.context_shift,
                cont_batching=config.cont_batching,
            ),
        )
        if config.context_shift and not self.engine.context_shift:
            logger.info("this model's memory cannot shift: generations end at the context's end")

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
            longest_piece=vocab.longest_piece,
        )

    def close(self) -> None:
        self.context.close()
        self.model.close()


def context_params(config: TextConfig, model: Model) -> ContextParams:
    """The context for a configuration. With one sequence a unified pool and a stream of its own are the same."""
    return ContextParams(
        n_ctx=config.n_ctx or model.n_ctx_train,
        n_batch=max(config.n_batch, config.n_parallel),  # every slot may decode in one step
        n_ubatch=min(config.n_ubatch, config.n_batch),
        n_seq_max=config.n_parallel,
        n_threads=config.n_threads,
        n_threads_batch=config.n_threads_batch,
        flash_attn=FlashAttention(config.flash_attn),
        kv_unified=config.kv_unified,
    )


def slot_context(config: TextConfig, context: Context) -> int:
    """Cells of one slot (D-21): its share of the context, at most what the model was trained for."""
    n_ctx_train = context.model.n_ctx_train
    share = (config.n_ctx or n_ctx_train) // config.n_parallel
    n_ctx = min(share, context.n_ctx_seq)
    if n_ctx_train and n_ctx > n_ctx_train:
        logger.warning("slots are limited to the %d tokens that the model was trained for", n_ctx_train)
        n_ctx = n_ctx_train
    if n_ctx < 8:
        raise errors.ContextError(
            f"-c {config.n_ctx} over -np {config.n_parallel} slots leaves {n_ctx} tokens a slot: give at least 8 each"
        )
    return n_ctx
