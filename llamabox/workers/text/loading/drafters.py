"""Who drafts, from the configuration."""

from __future__ import annotations

from llamabox.engine.drafting.drafter import Drafter
from llamabox.engine.drafting.text.corpus import Corpus
from llamabox.engine.drafting.text.drafter import TextDrafter
from llamabox.wire.text_config import TextConfig


def make_drafters(config: TextConfig) -> list[Drafter]:
    """The drafters that the configuration wants, the one that goes first in front; none with --spec off."""
    if config.spec == "off" or config.spec_n_max == 0:
        return []
    drafters: list[Drafter] = []
    if "text" in config.spec_types:
        # With `key` and with `all` requests say themselves whom they share with.
        corpus = None if config.spec_corpus == "off" else Corpus()
        drafters.append(TextDrafter(corpus, config.spec_n_max))
    return drafters


def drafter_names(config: TextConfig) -> list[str]:
    """What the drafters are called in answers: those of `--spec-type` that are set up."""
    if config.spec == "off" or config.spec_n_max == 0:
        return []
    is_set_up = {"text": True, "lookup": config.lookup_ngram_min > 0, "model": config.model_draft is not None}
    return [kind for kind in config.spec_types if is_set_up[kind]]
