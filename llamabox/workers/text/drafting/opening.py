"""The draft model that --model-draft names, beside its model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Native
from llamabox.bindings.files.gguf import check_model
from llamabox.bindings.model import Model, type_sizes
from llamabox.errors import ContextError, ModelLoadError, OptionsError
from llamabox.wire.text_config import DraftModelInfo, TextConfig
from llamabox.workers.text.drafting.vocabulary import difference
from llamabox.workers.text.loading.attention import choose_attention
from llamabox.workers.text.loading.contexts import Contexts, context_params
from llamabox.workers.text.loading.devices import model_params, uses_gpu
from llamabox.workers.text.loading.threads import thread_pools

logger = logging.getLogger(__name__)

OPTION = "--model-draft"


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A draft model with its context, which has a sequence for each slot."""

    model: Model
    context: Context
    n_ctx: int
    """The most cells of a sequence."""
    borrows_threads: bool
    """Whether it has as many threads as its model, and so may have the same ones."""

    def info(self) -> DraftModelInfo:
        """Its description for the server process."""
        model = self.model
        return DraftModelInfo(path=str(model.path), ftype=model.ftype, n_params=model.n_params, size=model.size)


def check_file(config: TextConfig, native: Native) -> None:
    """Raise ModelLoadError for a draft model's file that cannot be one, before the model itself is loaded."""
    if config.model_draft:
        with _named():
            check_model(Path(config.model_draft), type_sizes(native))


@contextmanager
def draft_model(config: TextConfig, target: Model, contexts: Contexts) -> Iterator[DraftModel | None]:
    """Open it for as long as the `with` lasts; None where none is named.

    Raises ModelLoadError, ContextError or OptionsError where it cannot draft for `target`.
    """
    if not config.model_draft:
        yield None
        return
    if contexts.generate is None:
        raise OptionsError(f"{OPTION} is for a model that writes text, and {config.model} makes vectors alone here")
    own = draft_config(config, config.model_draft)
    with ExitStack() as owned:
        with _named():
            params = model_params(own, target.native, devices_option="--device-draft")
            model = owned.enter_context(Model.load(target.native, own.model, params))
            _check(model, target)
            context = owned.enter_context(_open_context(own, model, contexts.generate))
            if not context.memory.exists:
                raise ModelLoadError(f"{model.path} cannot draft: it writes no text")
            borrows = (own.n_threads, own.n_threads_batch) == (config.n_threads, config.n_threads_batch)
            if not borrows and (pools := thread_pools(own, context)) is not None:
                owned.callback(pools.close)
            if config.warmup:
                context.warm_up()
        n_ctx = min(contexts.n_ctx, model.n_ctx_train or contexts.n_ctx)
        if n_ctx < contexts.n_ctx:
            logger.warning("no drafts behind %d tokens of a text: the draft model was trained for no more", n_ctx)
        logger.info("draft model: %s, %.0f MiB, %s", model.desc, model.size / 2**20, model.path)
        yield DraftModel(model, context, n_ctx, borrows)


def draft_config(config: TextConfig, path: str) -> TextConfig:
    """The configuration of the draft model at `path`: its own options, and the machine's.

    Its sequences share one pool, so that all draft in one pass over its weights, and a beginning that texts have in
    common is computed once. A sliding window keeps all its cells: a rejected draft takes cells back.
    """
    threads = config.n_threads_draft if config.n_threads_draft > 0 else config.n_threads
    usual = config.n_threads_batch if config.n_threads_draft <= 0 else config.n_threads_draft
    plain = TextConfig(model="")
    return replace(
        config,
        model=path,
        n_gpu_layers=config.n_gpu_layers_draft,
        devices=config.devices_draft,
        tensor_buffers=config.tensor_buffers_draft,
        type_k=config.type_k_draft,
        type_v=config.type_v_draft,
        n_threads=threads,
        n_threads_batch=config.n_threads_batch_draft if config.n_threads_batch_draft > 0 else usual,
        split_mode=plain.split_mode,
        tensor_split=plain.tensor_split,
        main_gpu=plain.main_gpu,
        kv_overrides=plain.kv_overrides,
        kv_unified=True,
        swa_full=True,
        rope_scaling=plain.rope_scaling,
        rope_freq_base=plain.rope_freq_base,
        rope_freq_scale=plain.rope_freq_scale,
        yarn_orig_ctx=plain.yarn_orig_ctx,
        yarn_ext_factor=plain.yarn_ext_factor,
        yarn_attn_factor=plain.yarn_attn_factor,
        yarn_beta_fast=plain.yarn_beta_fast,
        yarn_beta_slow=plain.yarn_beta_slow,
    )


def _check(model: Model, target: Model) -> None:
    """Raise ModelLoadError where `model` cannot draft for `target`."""
    if (what := difference(target.vocab, model.vocab)) is not None:
        raise ModelLoadError(f"{model.path} cannot draft for {target.path}: {what}")
    if model.is_recurrent or model.is_hybrid:
        raise ModelLoadError(f"{model.path} cannot draft: its memory does not take back tokens that are rejected")
    if not model.has_decoder or not model.is_causal:
        raise ModelLoadError(f"{model.path} cannot draft: it writes no text")


def _open_context(config: TextConfig, model: Model, target: Context) -> Context:
    """Its context has as many sequences and as many cells as that of its model."""
    flash = choose_attention(config, model, has_gpu=uses_gpu(config, model.native)).flash
    params = context_params(config, model, flash)
    return Context(model, replace(params, n_ctx=target.n_ctx, n_seq_max=target.n_seq_max))


@contextmanager
def _named() -> Iterator[None]:
    """Say which option names the file that an error is about."""
    try:
        yield
    except ModelLoadError as error:
        raise ModelLoadError(f"{OPTION}: {error.message}") from error
    except ContextError as error:
        raise ContextError(f"{OPTION}: {error.message}") from error
