"""Who drafts, from the configuration."""

from __future__ import annotations

from contextlib import ExitStack

from llamabox.bindings.model import Model
from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.context import LlamaDraftContext
from llamabox.workers.text.drafting.lookup import Lookup
from llamabox.workers.text.drafting.model import Lengths, ModelDrafter
from llamabox.workers.text.drafting.opening import DraftModel


def make_drafters(config: TextConfig, target: Model, draft: DraftModel | None, owned: ExitStack) -> list[Drafter]:
    """The drafters that the configuration wants, the one that goes first in front; none with --spec off.

    They draft for texts that `target` writes; `draft` is the open draft model, if there is one. What must be closed
    joins `owned`. Raises OptionsError for a lookup cache that cannot be used.
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
    return drafters


def drafter_names(config: TextConfig) -> list[str]:
    """What the drafters are called in answers: those of `--spec-type` that are set up."""
    if config.spec == "off" or config.spec_n_max == 0:
        return []
    is_set_up = {"text": True, "lookup": config.lookup_ngram_min > 0, "model": config.model_draft is not None}
    return [kind for kind in config.spec_types if is_set_up[kind]]


def model_drafter(config: TextConfig, target: Model, draft: DraftModel) -> ModelDrafter:
    """The drafter that asks the draft model."""
    context = LlamaDraftContext(draft.context, draft.n_ctx, target.vocab.n_tokens)
    lengths = Lengths(n_max=config.spec_n_max, n_min=config.spec_n_min, p_min=config.spec_p_min)
    return ModelDrafter(context, lengths, n_vocab=target.vocab.n_tokens, eog=frozenset(target.vocab.eog_tokens))
