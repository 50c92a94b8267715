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
