"""Who drafts, from the configuration."""

from __future__ import annotations

from contextlib import ExitStack

from llamabox.bindings.model import Model
from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.chain import Lengths
from llamabox.workers.text.drafting.context import LlamaDraftContext
from llamabox.workers.text.drafting.heads.drafter import HeadDrafter
from llamabox.workers.text.drafting.heads.opening import Heads
from llamabox.workers.text.drafting.lookup import Lookup
from llamabox.workers.text.drafting.model import ModelDrafter
from llamabox.workers.text.drafting.opening import DraftModel


def make_drafters(
    config: TextConfig, target: Model, draft: DraftModel | None, heads: Heads | None, owned: ExitStack
) -> list[Drafter]:
    """The drafters that the configuration wants, the one that goes first in front; none with --spec off.

    They draft for texts that `target` writes; `draft` is the open draft model, `heads` are the model's own, if there
    are such. What must be closed joins `owned`. Raises OptionsError for a lookup cache that cannot be used.
    """
    if config.spec == "off" or config.spec_n_max == 0:
        return []
    drafters: list[Drafter] = []
    if "text" in config.spec_types:
        # With `key` and with `all` requests say themselves whom they share with.
        corpus = None if config.spec_corpus == "off" else Corpus()
        drafters.append(TextDrafter(corpus, config.spec_n_max))
    if "lookup" in config.spec_types and config.lookup_ngram_min:
        lookup = Lookup(config, target.vocab.n_tokens)
        owned.callback(lookup.close)
        drafters.append(lookup.drafter)
    if draft is not None:
        drafters.append(model_drafter(config, target, draft))
    if heads is not None:
        drafters.append(head_drafter(config, target, heads))
    return drafters


def drafter_names(config: TextConfig, *, has_heads: bool) -> list[str]:
    """What the drafters are called in answers: those of `--spec-type` that are set up."""
    if config.spec == "off" or config.spec_n_max == 0:
        return []
    has_lookup, has_model = config.lookup_ngram_min > 0, config.model_draft is not None
    is_set_up = {"text": True, "lookup": has_lookup, "model": has_model, "mtp": has_heads}
    return [kind for kind in config.spec_types if is_set_up[kind]]


def model_drafter(config: TextConfig, target: Model, draft: DraftModel) -> ModelDrafter:
    """The drafter that asks the draft model."""
    context = LlamaDraftContext(draft.context, draft.n_ctx, target.vocab.n_tokens)
    vocab = target.vocab
    return ModelDrafter(context, _lengths(config), n_vocab=vocab.n_tokens, eog=frozenset(vocab.eog_tokens))


def head_drafter(config: TextConfig, target: Model, heads: Heads) -> HeadDrafter:
    """The drafter that asks the model's own heads."""
    vocab = target.vocab
    return HeadDrafter(heads.cells, _lengths(config), n_vocab=vocab.n_tokens, eog=frozenset(vocab.eog_tokens))


def _lengths(config: TextConfig) -> Lengths:
    return Lengths(n_max=config.spec_n_max, n_min=config.spec_n_min, p_min=config.spec_p_min)
