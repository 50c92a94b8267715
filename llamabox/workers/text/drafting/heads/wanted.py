"""Whether a configuration wants the heads of its model."""

from __future__ import annotations

from llamabox.wire.text_config import TextConfig


def may_have_heads(config: TextConfig) -> bool:
    """Whether a model's heads are to draft, if it has some. A draft model that is named goes before them."""
    return config.spec != "off" and config.spec_n_max > 0 and "mtp" in config.spec_types and not config.model_draft
