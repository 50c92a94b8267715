"""The contexts that a text worker opens over its model, by what each is for."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

from llamabox import errors
from llamabox.bindings.context import Context, ContextParams, FlashAttention, Pooling, Rope, RopeScaling
from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model
from llamabox.bindings.threadpool import ThreadParams
from llamabox.engine.embedding.rooms import TILE
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.embedding.pooler import can_split
from llamabox.workers.text.loading.attention import Attention, choose_attention
from llamabox.workers.text.loading.devices import offloads, uses_gpu
from llamabox.workers.text.loading.threads import n_threads, thread_params

logger = logging.getLogger(__name__)

N_SEQUENCES = 64
"""Passages in a batch at most, with the filling of LlamaPooler."""

N_STATES = 8
"""Passages in a batch at most, for models that keep a state for each passage, whatever its length."""

MOST_STATES = 8
"""Tokens of a draft for a recurrent model at most: each takes the memory of a further state, for each slot."""

QUICK_ROWS = 128
"""Tokens from which on a CPU computes no faster per token: a MiniLM on two cores made 54 vectors a second of texts with
62 tokens by ones, 74 by twos, 76 by eights. Smaller batches let others in sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """A model's contexts. Owns them; `close()` is idempotent. They belong to the thread that opened them."""

    attention: Attention
    n_ctx: int
    """Cells of a slot, and tokens of the longest passage."""
    generate: Context | None
    """None for a model that makes vectors alone."""
    embed: Context | None
    """Makes vectors; None where none are asked for."""
    lanes: tuple[Context, ...] = ()
    """More of the kind of `embed`: with them batches of passages are computed side by side."""

    @property
    def main(self) -> Context:
        """The engine's. Where nothing generates it is `embed`, and the engine never gets a request."""
        context = self.generate or self.embed
        assert context is not None, "a model is loaded for something"
        return context

    @property
    def poolers(self) -> tuple[Context, ...]:
        """All contexts that make vectors."""
        return () if self.embed is None else (self.embed, *self.lanes)

    @property
    def all(self) -> tuple[Context, ...]:
        return self.poolers if self.generate is None else (self.generate, *self.poolers)

    def close(self) -> None:
        for context in self.all:
            context.adopt()  # a lane's thread may have it
            context.close()

    def __enter__(self) -> Contexts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_contexts(config: TextConfig, model: Model, n_whole: int = 0) -> Contexts:
    """Open what the configuration asks for and the model can. Raises ModelLoadError or ContextError.

    Passages may have media chunks of up to `n_whole` cells that are computed at once.
    """
    native = model.native
    attention = choose_attention(config, model, has_gpu=uses_gpu(config, native))
    params = context_params(config, model, attention.flash)
    n_ctx = slot_context(config, model, params.n_ctx)
    if config.rerank and not model.has_classifier:
        raise errors.ModelLoadError(f"{config.model} is no reranker: it has no classifier, which --rerank needs")
    generate: Context | None = None
    embed: Context | None = None
    lanes: list[Context] = []
    with ExitStack() as opened:
        if config.embeddings or config.rerank:
            embed = opened.enter_context(_open_embedding(config, model, params, n_ctx, n_whole))
            if not embed.memory.exists:
                n_more = n_lanes(config, native, n_ctx) - 1
                lanes = [
                    opened.enter_context(_open_embedding(config, model, params, n_ctx, n_whole)) for _ in range(n_more)
                ]
            if config.lora:
                logger.warning("embeddings are made by the model alone, without its LoRA adapters")
        if not config.rerank and model.has_decoder and (embed is None or embed.memory.exists):
            generate = opened.enter_context(
                Context(model, replace(params, n_rs_seq=n_states(config, model.size, state_size(model))))
            )
            n_ctx = slot_context(config, model, generate.n_ctx_seq)
        if embed is None and (generate is None or not generate.memory.exists):
            raise errors.ModelLoadError(
                f"{config.model} cannot generate text: give --embeddings to make vectors with it"
            )
        opened.pop_all()
    return Contexts(attention=attention, n_ctx=n_ctx, generate=generate, embed=embed, lanes=tuple(lanes))


def _open_embedding(config: TextConfig, model: Model, params: ContextParams, n_ctx: int, n_whole: int) -> Context:
    rows = max(quick_rows(config, model.native), n_whole)
    # Whole batches of passages have rows enough for what flash attention computes in tiles.
    params = replace(params, flash_attn=FlashAttention(config.flash_attn))
    return open_embedding(model, params, Pooling(config.pooling), n_ctx=n_ctx, quick_rows=rows)


def open_embedding(model: Model, params: ContextParams, pooling: Pooling, *, n_ctx: int, quick_rows: int) -> Context:
    """Open a context that makes vectors of passages of up to `n_ctx` tokens. `params` are those of a generating one.

    A passage is computed in one piece, which for all but causal models with the last token's vector is the only way.
    Those may be cut: libllama computes the logits of every row as well, and has to keep them somewhere.
    Raises ContextError.
    """
    pooling = settle_pooling(model, pooling)
    n_seq_max = N_STATES if model.is_recurrent or model.is_hybrid else N_SEQUENCES
    n_rows = max(quick_rows, TILE, params.n_seq_max)
    settings = replace(
        params,
        n_seq_max=n_seq_max,
        kv_unified=True,
        embeddings=True,
        pooling=pooling,
    )

    def make(n_batch: int) -> Context:
        n_batch = -(-n_batch // n_seq_max) * n_seq_max  # else libllama aborts as it reserves memory for a full batch
        return Context(model, replace(settings, n_ctx=max(n_ctx, n_batch), n_batch=n_batch, n_ubatch=n_batch))

    if model.is_causal and pooling in (Pooling.LAST, Pooling.RANK):
        context = make(n_rows)
        if can_split(context):
            return context
        context.close()
    return make(max(n_ctx, n_rows))


def settle_pooling(model: Model, asked: Pooling) -> Pooling:
    """Where neither the user nor the model says how vectors of tokens become one, a way that is of use.

    In a causal model the last token alone has seen all others. Raises nothing: libllama knows what a model can do.
    """
    if asked is not Pooling.UNSPECIFIED or model.meta(f"{model.meta('general.architecture')}.pooling_type") is not None:
        return asked
    pooling = Pooling.LAST if model.is_causal else Pooling.MEAN
    logger.info("the model does not say how to pool: --pooling %s", pooling)
    return pooling


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
        op_offload=config.op_offload,
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


def n_states(config: TextConfig, model_size: int, n_bytes: int) -> int:
    """States to keep of each sequence's last tokens where the model is recurrent, to take drafts back.

    As many as take a quarter of the model's size for all slots, MOST_STATES at most. `n_bytes`: what one takes.
    """
    if config.spec == "off":
        return 0
    n_most = max(0, min(MOST_STATES, config.spec_n_max, config.n_ubatch - 2))
    return min(n_most, model_size // 4 // (n_bytes * config.n_parallel)) if n_bytes else n_most


def state_size(model: Model) -> int:
    """Most bytes of a sequence's recurrent state, of models that tell its sizes; 0: others, whose state is small."""
    name = model.meta("general.architecture")
    inner, state = (int(model.meta(f"{name}.ssm.{key}") or 0) for key in ("inner_size", "state_size"))
    return 4 * model.n_layer * inner * state


def quick_rows(config: TextConfig, native: Native) -> int:
    """Tokens of a batch of passages: as many as are computed at once, but no more than makes them quicker."""
    return config.n_ubatch if offloads(config, native) else min(config.n_ubatch, QUICK_ROWS)


MAX_LANES = 8
LANE_TOKENS = 8192
"""Tokens of the longest passages of all lanes together. A context's memory grows with the square of its length."""


def n_lanes(config: TextConfig, native: Native, n_ctx: int) -> int:
    """Batches of passages that are computed side by side, a thread each. Options that place threads know of one."""
    plain, batch = thread_params(config)
    if offloads(config, native) or not plain == batch == ThreadParams():
        return 1
    return max(1, min(n_threads(config), MAX_LANES, LANE_TOKENS // n_ctx))


def slot_share(config: TextConfig, n_ctx_train: int) -> int:
    """Cells of the context that one slot may use: its part, or in a pool all, within the limit of the configuration."""
    whole = config.n_ctx or n_ctx_train
    share = whole if config.kv_unified else whole // config.n_parallel
    return min(share, config.n_ctx_slot) if config.n_ctx_slot else share


def slot_context(config: TextConfig, model: Model, n_most: int) -> int:
    """Cells of one slot: at most `n_most` and what the model was trained for."""
    n_ctx_train = model.n_ctx_train
    n_ctx = min(slot_share(config, n_ctx_train), n_most)
    if n_ctx_train and n_ctx > n_ctx_train:
        logger.warning("slots are limited to the %d tokens that the model was trained for", n_ctx_train)
        n_ctx = n_ctx_train
    if n_ctx < 8:
        raise errors.ContextError(
            f"-c {config.n_ctx} over -np {config.n_parallel} slots leaves {n_ctx} tokens a slot: give at least 8 each"
        )
    return n_ctx
