"""The heads of multi-token prediction that a model's file has, beside its model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from llamabox.bindings.context import Context, Pooling
from llamabox.bindings.files.gguf import Header
from llamabox.bindings.model import Model
from llamabox.errors import ContextError, LlamaboxError, OptionsError
from llamabox.wire.text_config import SPEC_TYPES, TextConfig
from llamabox.workers.text.drafting.heads.cells import HeadCells
from llamabox.workers.text.drafting.heads.context import LlamaHeadsContext
from llamabox.workers.text.drafting.heads.seams import Pairs
from llamabox.workers.text.drafting.heads.wanted import may_have_heads
from llamabox.workers.text.loading.contexts import Contexts

logger = logging.getLogger(__name__)

EXPERTS = ("ffn_gate_inp",)
MLA = ("attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_k_b", "ffn_gate_inp")

NEEDS: Mapping[str, tuple[str, ...]] = {
    "bailingmoe3": ("nextn.shared_head_norm",),
    "cohere2moe": EXPERTS,
    "deepseek2": (*MLA, "ffn_norm", "ffn_down_exps", "ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp"),
    "deepseek32": MLA,
    "glm-dsa": MLA,
    "glm4moe": EXPERTS,
    "hy_v3": (),
    "mimo2": ("attn_qkv", "ffn_gate", "ffn_up", "ffn_down"),
    "nemotron_h_moe": (*EXPERTS, "nextn.shared_head_norm"),
    "qwen35": (),
    "qwen35moe": EXPERTS,
    "qwen3next": EXPERTS,
    "step35": (),
}
"""Architectures whose heads libllama computes with cells that can be taken back, and the tensors that the layer of such
a head must have, beside those of ALL. It ends the process where one is missing."""

ALL = ("nextn.eh_proj", "nextn.enorm", "nextn.hnorm")

SEVERAL = frozenset({"hy_v3", "mimo2", "step35"})
"""Architectures that may have more heads than one. libllama ends the process where others have."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The first head of a model, with its context, which has the sequences of the model's."""

    context: Context
    cells: HeadCells


@contextmanager
def open_heads(config: TextConfig, model: Model, contexts: Contexts) -> Iterator[Heads | None]:
    """Open them for as long as the `with` lasts; None where there are none, or they are not to draft.

    Raises OptionsError where --spec-type asks for heads that cannot be had.
    """
    if not may_have_heads(config):
        yield None
        return
    with ExitStack() as owned:
        found = _open(config, model, contexts, owned)
        if isinstance(found, Heads):
            logger.info("the model drafts with %s of multi-token prediction", _counted(model.n_mtp_heads))
            yield found
            return
        if config.spec_types != SPEC_TYPES:
            raise OptionsError(f"--spec-type draft-mtp: {found}")
        if _n_heads(model.header):
            logger.info("the model's heads do not draft: %s", found)
        yield None


def _open(config: TextConfig, model: Model, contexts: Contexts, owned: ExitStack) -> Heads | str:
    """The heads, whose context joins `owned`; or what keeps them from drafting, as a clause."""
    target = contexts.generate
    if target is None:
        return f"{config.model} makes vectors alone here"
    if (why := why_not(model, target)) is not None:
        return why
    # One pool: all sequences draft in one pass. A window keeps all its cells: a rejected draft takes cells back.
    params = replace(target.params, n_ctx=target.n_ctx, n_rs_seq=0, kv_unified=True, swa_full=True)
    try:
        context = owned.enter_context(Context(model, params, heads_of=target))
    except ContextError as error:
        return error.message
    heads = LlamaHeadsContext(context, target)
    if (why := _trial(heads, context)) is not None:
        return why
    return Heads(context, HeadCells(heads, target.n_seq_max))


def why_not(model: Model, target: Context) -> str | None:
    """What keeps the model's heads from drafting, as a clause; None where nothing does."""
    header = model.header
    architecture = header.text("general.architecture") or ""
    if not _n_heads(header):
        return f"{model.path} has no heads of multi-token prediction"
    if not (n_heads := model.n_mtp_heads):
        return "this libllama has no way to use them"
    first = f"blk.{model.n_layer}."
    if f"{first}nextn.eh_proj.weight" not in header.tensors:
        return f"{model.path} was made without the tensors of its heads"
    if architecture not in NEEDS:
        return f"heads of the architecture {architecture} are not supported"
    if n_heads > 1 and architecture not in SEVERAL:
        return f"it has {n_heads} of them, and of the architecture {architecture} one is supported"
    for name in (*ALL, *NEEDS[architecture]):
        if f"{first}{name}.weight" not in header.tensors:
            return f"{model.path} has no tensor {first}{name}.weight, which its head takes"
    if target.pooling is not Pooling.NONE:
        return "the model pools its rows"
    return None


def _n_heads(header: Header) -> int:
    return header.number(f"{header.text('general.architecture')}.nextn_predict_layers") or 0


def _trial(heads: LlamaHeadsContext, context: Context) -> str | None:
    """Compute once: what libllama cannot compute with should not end a request. What is wrong, as a clause."""
    rows = np.zeros((2, heads.n_hidden), np.float32)
    try:
        heads.compute([Pairs(0, 0, [0, 0], rows, True)])
        if not context.memory.seq_rm(0, 1, -1):
            return "their memory does not take back tokens that are rejected"
    except LlamaboxError as error:
        return error.message
    finally:
        context.memory.clear(data=True)
    return None


def _counted(n_heads: int) -> str:
    return "its head" if n_heads == 1 else f"the first of its {n_heads} heads"
