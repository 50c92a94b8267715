"""From a TextConfig to a model that answers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

from llamabox.bindings import backend
from llamabox.bindings.context import Context, Pooling
from llamabox.bindings.ffi import Native, build_info
from llamabox.bindings.media.projector import Projector
from llamabox.bindings.model import Loading, Model
from llamabox.bindings.weights.adapters import Lora, apply_loras
from llamabox.bindings.weights.pages import untouched
from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.embedding.embedder import Embedder
from llamabox.engine.engine import Engine, EngineConfig
from llamabox.engine.kv.checkpoints import CheckpointLimits
from llamabox.machine.team import Team
from llamabox.wire.text_config import ModelInfo, TextConfig
from llamabox.workers.text.drafting.heads.opening import Heads, open_heads
from llamabox.workers.text.drafting.opening import DraftModel, check_file, draft_model
from llamabox.workers.text.embedding.pooler import LlamaPooler, can_take_media
from llamabox.workers.text.loading.cell_memory import warn_if_scarce
from llamabox.workers.text.loading.contexts import Contexts, open_contexts, quick_rows
from llamabox.workers.text.loading.devices import offloads, uses_gpu
from llamabox.workers.text.loading.drafters import drafter_names, make_drafters
from llamabox.workers.text.loading.projector import (
    load_projector,
    media_info,
    warm_up_projector,
    whole_cells,
    with_room,
)
from llamabox.workers.text.loading.speed import measure
from llamabox.workers.text.loading.steering import Steering, read_steering
from llamabox.workers.text.loading.threads import adaptive_team, has_spare_core, thread_pools
from llamabox.workers.text.media.desk import EncodingDesk
from llamabox.workers.text.runner import LlamaRunner
from llamabox.workers.text.start import begin_load
from llamabox.workers.text.steadiness.trial import is_steady
from llamabox.workers.text.steadiness.verdicts import Verdict, verdict_of

logger = logging.getLogger(__name__)

ANY_LENGTH = 1 << 30
"""Bytes that one token may stand for, where there is no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A loaded model, its contexts, and the engine and the embedder over them. Owns all of it; `close()` is idempotent.

    Belongs to the thread that loads it.
    """

    model: Model
    steering: Steering | None
    loras: Sequence[Lora]
    projector: Projector | None
    """None where the model takes text alone."""
    encoder: EncodingDesk | None
    """What encodes with the projector."""
    contexts: Contexts
    engine: Engine
    drafters: list[str]
    """Who guesses at its texts, by the names that answers give them."""
    draft: DraftModel | None
    """None where no second model drafts."""
    embedder: Embedder | None
    """None where no vectors are asked for."""
    poolers: Sequence[LlamaPooler]
    """Each computes batches of the embedder, over a context of its own."""
    tokens_per_second: int
    """The most that a request may limit itself to; 0: no limits."""
    _owned: ExitStack

    @classmethod
    def load(
        cls,
        native: Native,
        config: TextConfig,
        on_progress: Callable[[float], None],
        start_encoder: Callable[[Projector], EncodingDesk] | None = None,
        before_decode: Callable[[], None] | None = None,
        loading: Loading | None = None,
    ) -> TextModel:
        """`start_encoder` makes what encodes with a projector, which is closed with the model; None: nobody has media.

        The engine's thread calls `before_decode` as each decode begins. `loading` is the model where its load has
        begun. It is finished here.

        Raises ModelLoadError or ContextError with one line that says what is wrong.
        """
        backend.start(native, backend.Numa(config.numa))
        check_file(config, native)
        if found := backend.kernels(native):
            logger.info("CPU kernels: %s", found)
        with ExitStack() as owned:
            model = owned.enter_context((loading or begin_load(native, config)).finish(on_progress))
            steering = read_steering(config, model)
            loras = [owned.enter_context(Lora(model, path)) for path, _ in config.lora]
            encoder = None
            if (projector := load_projector(config, model)) is not None:
                owned.enter_context(projector)
                if start_encoder is not None:
                    encoder = start_encoder(projector)  # before this thread is bound to CPUs
                    owned.callback(encoder.close)
                config = with_room(config, projector)
            before = untouched(native)
            contexts = owned.enter_context(open_contexts(config, model, whole_cells(projector)))
            draft = owned.enter_context(draft_model(config, model, contexts))
            heads = owned.enter_context(open_heads(config, model, contexts))
            warn_if_scarce(untouched(native) - before)
            team = owned.enter_context(lend_threads(config, contexts, draft, heads, encoder))
            steer(steering, contexts)
            if config.warmup:
                warm_up(contexts, loras)
                warm_up_projector(config, projector, media_contexts(contexts))
            tokens_per_second = token_rate(config, contexts)
            drafters = make_drafters(config, model, draft, heads, owned)
            engine = make_engine(config, contexts, loras, encoder, drafters, heads, before_decode, team)
            poolers = make_poolers(config, contexts, encoder)
            return cls(
                model=model,
                steering=steering,
                loras=loras,
                projector=projector,
                encoder=encoder,
                contexts=contexts,
                engine=engine,
                drafters=drafter_names(config, has_heads=heads is not None) if engine.is_drafting else [],
                embedder=make_embedder(config, contexts, poolers, encoder),
                draft=draft,
                poolers=poolers,
                tokens_per_second=tokens_per_second,
                _owned=owned.pop_all(),
            )

    def close(self) -> None:
        self._owned.close()

    def __enter__(self) -> TextModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def info(self) -> ModelInfo:
        """The model's description for the server process."""
        model, vocab = self.model, self.model.vocab
        return ModelInfo(
            path=str(model.path),
            n_ctx=self.contexts.n_ctx,
            n_ctx_total=self.contexts.main.n_ctx,
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
            longest_piece=vocab.longest_piece if vocab.type in _plain_vocabularies(model) else ANY_LENGTH,
            lora=[
                {
                    "path": str(lora.path),
                    "task_name": lora.meta("adapter.lora.task_name"),
                    "prompt_prefix": lora.meta("adapter.lora.prompt_prefix"),
                }
                for lora in self.loras
            ],
            tokens_per_second=self.tokens_per_second,
            generates=self.contexts.generate is not None,
            pooling=self.contexts.embed.pooling if self.contexts.embed else "",
            n_vector=self.n_vector,
            embeds_media=self.projector is not None and self.contexts.embed in media_contexts(self.contexts),
            media=media_info(self.projector),
            drafters=self.drafters,
            draft=None if self.draft is None else self.draft.info(),
        )

    @property
    def n_vector(self) -> int:
        """Floats of a vector; 0 where none are made."""
        if self.contexts.embed is None:
            return 0
        is_rank = self.contexts.embed.pooling is Pooling.RANK
        return self.model.n_cls_out if is_rank else self.model.n_embd_out


def steer(steering: Steering | None, contexts: Contexts) -> None:
    """Add the control vector, if there is one, to what all contexts compute."""
    if steering is None:
        return
    for context in contexts.all:
        steering.apply(context)
    logger.info("control vector on layers %d to %d", steering.first, steering.last)


def warm_up(contexts: Contexts, loras: Sequence[Lora]) -> None:
    """Compute once, with the adapters too: what libllama cannot compute with should end the load, not a request."""
    if loras and contexts.generate is not None:
        apply_loras(contexts.generate, [(lora, 1.0) for lora in loras])
        contexts.generate.warm_up()
        apply_loras(contexts.generate, [])
    for context in contexts.all:
        context.warm_up()


@contextmanager
def lend_threads(
    config: TextConfig,
    contexts: Contexts,
    draft: DraftModel | None,
    heads: Heads | None,
    encoder: EncodingDesk | None,
) -> Iterator[Team | None]:
    """Let the contexts compute with the threads that the options describe, for as long as the `with` lasts.

    Where no option says anything of them, decodes may have fewer: by the team that this yields.
    """
    threads = thread_pools(config, contexts.main)
    if threads is None:
        with adaptive_team(config, contexts.main, encoder) as team:
            yield team
        return
    try:
        if contexts.embed not in (None, contexts.main):
            threads.attach(contexts.embed)
        if draft is not None and draft.borrows_threads:
            threads.attach(draft.context)
        if heads is not None:
            threads.attach(heads.context)
        yield None
    finally:
        threads.close()


def token_rate(config: TextConfig, contexts: Contexts) -> int:
    """The cap that --tokens-per-second sets, measured now where it says so; 0 where nothing is generated."""
    if config.tokens_per_second >= 0:
        return config.tokens_per_second
    if contexts.generate is None:
        return 0
    measured = measure(contexts.generate)
    logger.info("measured: at most %d tokens per second", measured)
    return measured


def make_engine(
    config: TextConfig,
    contexts: Contexts,
    loras: Sequence[Lora],
    encoder: EncodingDesk | None,
    drafters: Sequence[Drafter] = (),
    heads: Heads | None = None,
    before_decode: Callable[[], None] | None = None,
    team: Team | None = None,
) -> Engine:
    """The engine over the main context, which `heads` follow. Where rows are steady, the `team` computes them."""
    attention = contexts.attention
    rows_of = None if encoder is None else encoder.rows
    # Without drafters steadiness only saves passes: no reason to run a model that is not to be run once.
    is_tried = contexts.generate is not None and not attention.mixes and (drafters or config.warmup)
    known = known_verdict(config, contexts) if is_tried else None
    steady = bool(is_tried) and is_steady(contexts.main, tile=attention.tile, drafts=bool(drafters), verdict=known)
    engine = Engine(
        LlamaRunner(
            contexts.main,
            loras,
            tile=attention.tile,
            mixes=attention.mixes,
            is_steady=steady,
            rows_of=rows_of,
            heads=None if heads is None else heads.cells,
            is_near=not offloads(config, contexts.main.native),
            has_spare_core=has_spare_core(config, contexts.main),
            before_decode=before_decode,
            team=team if steady else None,  # else a row may depend on the number of threads
        ),
        EngineConfig(
            n_slots=min(config.n_parallel, contexts.main.n_seq_max),  # less for a model that only embeds
            n_ctx=contexts.n_ctx,
            context_shift=config.context_shift,
            cont_batching=config.cont_batching,
            slot_similarity=config.slot_similarity,
            gap_factor=config.gap_factor,
            checkpoints=CheckpointLimits(config.ctx_checkpoints, config.checkpoint_min_step),
            host_budget=config.cache_ram << 20 if config.cache_ram >= 0 else sys.maxsize,
        ),
        drafters,
        encoder=encoder,
    )
    if heads is not None and not engine.is_drafting:
        heads.cells.lose()
    if drafters and not engine.cache.n_draftable():
        logger.info("drafting is off: this model's memory cannot take back tokens that did not come")
    if config.context_shift and not engine.context_shift and contexts.generate is not None:
        logger.info("this model's memory cannot shift: generations end at the context's end")
    return engine


def known_verdict(config: TextConfig, contexts: Contexts) -> Verdict | None:
    """Where it is known whether rows are steady, for what this machine's CPU computes alone."""
    native = contexts.main.native
    if offloads(config, native):
        return None
    return verdict_of(contexts.main, tile=contexts.attention.tile)


def media_contexts(contexts: Contexts) -> list[Context]:
    """Those that can compute media."""
    found = [] if contexts.generate is None else [contexts.generate]
    return [*found, contexts.embed] if contexts.embed is not None and can_take_media(contexts.embed) else found


def make_poolers(config: TextConfig, contexts: Contexts, encoder: EncodingDesk | None) -> list[LlamaPooler]:
    """One for each context that makes vectors."""
    if contexts.embed is None:
        return []
    is_plain = not contexts.embed.memory.exists and not uses_gpu(config, contexts.embed.native)
    is_tiled = is_plain and config.flash_attn != "off"
    rows_of = encoder.rows if encoder is not None and can_take_media(contexts.embed) else None
    return [LlamaPooler(context, is_tiled=is_tiled, rows_of=rows_of) for context in contexts.poolers]


def make_embedder(
    config: TextConfig, contexts: Contexts, poolers: Sequence[LlamaPooler], encoder: EncodingDesk | None
) -> Embedder | None:
    """What plans the poolers' batches; None where nobody may ask for vectors."""
    if not poolers:
        return None
    n_rows = quick_rows(config, contexts.main.native)
    return Embedder(poolers[0], n_ctx=contexts.n_ctx, n_rows=n_rows, encoder=encoder)


def _plain_vocabularies(model: Model) -> tuple[int, int]:
    """Vocabularies whose tokens stand for all of a text. Others leave blanks out, or have words of any length."""
    lib = model.native.lib
    return lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE
