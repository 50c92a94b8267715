"""What routes need of the model behind them, and the refusal where it is not there (docs/api.md, Kinds of models)."""

from __future__ import annotations

from enum import Enum, auto

from llamabox.errors import NotSupported, RequestError, WrongModel


class Ability(Enum):
    """What a model can be asked for."""

    LANGUAGE = auto()  # its chat template, and facts that only language models have
    TOKENS = auto()
    GENERATE = auto()
    INFILL = auto()
    HEAR = auto()
    EMBED = auto()
    RERANK = auto()
    SHOW_SLOTS = auto()
    KEEP_SLOTS = auto()  # in files
    LORA = auto()
    DRAW = auto()
    SHOW_JOBS = auto()  # of pictures, as slots


WORDS = {
    Ability.LANGUAGE: "completion",
    Ability.TOKENS: "tokenization",
    Ability.GENERATE: "completion",
    Ability.INFILL: "infill",
    Ability.HEAR: "transcription",
    Ability.EMBED: "embedding",
    Ability.RERANK: "reranking",
    Ability.KEEP_SLOTS: "completion",
}
"""What a model of another kind does not do."""

SWITCHES = {
    Ability.INFILL: "infill. Start it with `--infill`",
    Ability.HEAR: "audio input. Start it with `--mmproj` and a projector that hears",
    Ability.EMBED: "embeddings. Start it with `--embeddings`",
    Ability.RERANK: "reranking. Start it with `--rerank`",
    Ability.SHOW_SLOTS: "slots endpoint. Start it with `--slots`",
    Ability.KEEP_SLOTS: "slots actions. Start it with `--slots` and `--slot-save-path`",
    Ability.LORA: "LoRA adapters. Start it with `--lora`",
    Ability.DRAW: "images. Start it with `--images` and a model that draws",
    Ability.SHOW_JOBS: "slots endpoint. Start it with `--slots`",
}
"""What a server without an option does not support, and the option."""


def refusal(ability: Ability, *, by_kind: bool) -> RequestError:
    """The error for a route whose need is not met: `by_kind` no option would help, it is another kind of model."""
    if by_kind:
        return WrongModel(f"You are not allowed to do {WORDS[ability]} from this model")
    return NotSupported(f"This server does not support {SWITCHES[ability]}")
