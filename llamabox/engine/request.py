"""What a client asked of the engine: frozen values, the defaults of which live here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from llamabox.engine.grammar import Grammar, TokenMask
    from llamabox.engine.seams import SamplerSource
    from llamabox.engine.text.stop_strings import StopStrings

DEFAULT_SAMPLERS = ("dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
"""llama-box's chain; penalties come first unless a request names them elsewhere."""

RANDOM_SEED = 0xFFFFFFFF
"""LLAMA_DEFAULT_SEED: draw a seed of its own for each request."""

LOWEST_SEED, HIGHEST_SEED = -(2**63), 2**64 - 1
"""Clients have seeds of 31, 53 and 64 bits, with a sign and without."""

FILL_CONTEXT = -2
"""An n_predict: to the end of the text or of the context, which is not shifted."""

SAMPLER_NAMES = {
    "penalties": "penalties",
    "dry": "dry",
    "top_n_sigma": "top_n_sigma",
    "top-n-sigma": "top_n_sigma",
    "top_k": "top_k",
    "top-k": "top_k",
    "typ_p": "typ_p",
    "typ-p": "typ_p",
    "typ": "typ_p",
    "typical": "typ_p",
    "typical_p": "typ_p",
    "typical-p": "typ_p",
    "top_p": "top_p",
    "top-p": "top_p",
    "nucleus": "top_p",
    "min_p": "min_p",
    "min-p": "min_p",
    "xtc": "xtc",
    "temperature": "temperature",
    "temp": "temperature",
    "infill": "infill",
    "adaptive_p": "adaptive_p",
    "adaptive-p": "adaptive_p",
}
"""Every accepted spelling of a sampler's name."""

SAMPLER_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
    "i": "infill",
    "a": "adaptive_p",
}
"""The letters of `--sampling-seq`."""


Bias = Annotated[float, "-inf"]
"""Added to a token's logit; -inf bans it."""

MAX_BIASES = 4096
"""Tokens of one request's logit bias."""

MAX_STOP_LENGTH = 4096
"""Characters of a stop string."""

LoraSet = tuple[tuple[int, float], ...]
"""Which LoRA adapters compute a text: (id, scale) in the order of ids, none at scale 0. Equal sets are equal values."""


def lora_set(scales: Mapping[int, float]) -> LoraSet:
    """The set of adapters with these scales by id; those that are not named have scale 0."""
    return tuple(sorted((adapter_id, scale) for adapter_id, scale in scales.items() if scale))


def fold_seed(seed: int) -> int:
    """A seed in 32 bits: -1 and 4294967295 draw one, any other becomes what is left of it modulo 4294967295."""
    return RANDOM_SEED if seed in (-1, RANDOM_SEED) else seed % RANDOM_SEED


@dataclass(frozen=True, slots=True)
class Words:
    """A segment of text: each token is one cell at one position."""

    tokens: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Media:
    """A segment that is a media chunk, an image or a part of one or a stretch of sound: never split in a cache.

    Equal chunks are computed to equal cells: `key` names the content and all that makes its rows what they are. The
    chunk's cells take `n_positions` positions, under M-RoPE fewer than it has cells; the text behind it goes on there.

    The cells of a chunk that is not causal attend to one another: it is computed whole, in a batch of its own.
    """

    key: bytes
    n_cells: int
    n_positions: int
    is_causal: bool = True


Segment = Words | Media

Prompt = tuple[Segment, ...]
"""What a text goes on from. A prompt without media is one segment of words, or none."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image: its pixels in rows from the top, three bytes (red, green, blue) each."""

    width: int
    height: int
    pixels: bytes = field(repr=False)

    @property
    def n_bytes(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class Sound:
    """A decoded recording: mono, at the `rate` (samples a second) that the model hears."""

    rate: int
    samples: bytes = field(repr=False)  # float32, little endian

    @property
    def n_bytes(self) -> int:
        return len(self.samples)


PromptPart = str | int | Picture | Sound

PromptText = list[PromptPart]
"""A prompt as it comes to the worker, in order: strings and token ids become words, each of the others media."""

NO_MEDIA = "this model takes no images or sound"
"""What a prompt with media is refused with where there is no projector."""


def n_cells(prompt: Prompt) -> int:
    """Cells of all segments."""
    return sum(segment.n_cells for segment in prompt)


def prompt_tokens(prompt: Prompt) -> tuple[int, ...]:
    """The tokens of all its words in order, for what looks back at the text: penalties and DRY. Media have none."""
    words = [segment.tokens for segment in prompt if isinstance(segment, Words)]
    return words[0] if len(words) == 1 else tuple(chain.from_iterable(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen. Values are checked before they get here, against docs/api.md, Sampling fields."""

    samplers: tuple[str, ...] = DEFAULT_SAMPLERS
    seed: int = RANDOM_SEED
    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_last_n: int = 64  # 0 off, -1 the slot's context
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalize_nl: bool = False  # whether the penalties reach the newline token
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1  # 0 off, -1 the slot's context
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0  # probability that adaptive_p, if named, keeps choosing near; negative: it is a draw
    adaptive_decay: float = 0.9  # 0 to 0.99: how slowly adaptive_p forgets; 1 / (1 - decay) tokens
    min_keep: int = 0
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int | str, Bias], ...] = ()  # a token or a text, for the engine tokens; the last one counts


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftingParams:
    """How a request's next tokens may be guessed. No text depends on it, but how soon it is there."""

    n_max: int = -1  # most tokens of a draft; -1: as the server has it; 0: no drafts
    n_min: int = 0  # drafts of fewer tokens are not verified
    p_min: float = -1.0  # drafted tokens less likely than this are not verified; -1: as the server has it
    prediction: tuple[int, ...] = ()  # tokens that the client foresees
    audience: str = ""  # whose finished outputs may help it, and whom its own may help


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerGrammar:
    """A grammar to which an answer's grammar refers: for a custom tool's input, or a text of the answer."""

    name: str  # in the answer's grammar
    field: str  # of the request, where it stands
    tool: str = ""  # whose input it is for; empty: it is for no tool's
    syntax: str  # "lark", "regex" or "gbnf", as clients write them; "own": Lark that this server wrote
    definition: str
    is_escaped: bool = False  # its texts stand in a JSON string


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtBudget:
    """How many tokens the thoughts of an answer may have, and what is said where they would have more.

    `opens` and `closes` are texts, with marks (llamabox.marks) in the place of control tokens.
    """

    n_tokens: int  # of all thoughts of an answer together; 0: a thought ends as soon as it has begun
    opens: tuple[str, ...]  # with which a thought begins; none where only the prompt opens one
    closes: tuple[str, ...]  # with which it ends
    is_begun: bool = False  # the prompt ends within a thought
    message: str = ""  # said before the end, the first time
    close: str = ""  # the end that is said, control tokens as their texts
    message_tokens: tuple[int, ...] = ()  # for the worker to fill in
    close_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """What is to be generated from a prompt, and when it ends."""

    n: int = 1  # sequences that share one prompt evaluation
    n_predict: int = -1  # -1: to the end of the text, or of a context that cannot shift; 0: none
    n_keep: int = 0  # tokens kept at a context shift; -1: the whole prompt
    may_shift: bool = True  # a full context is shifted, where the server does so; False: the text ends there
    n_discard: int = 0  # tokens dropped at a context shift; 0: half of what is not kept
    n_least: int = 0  # so many tokens come before a token or a stop string may end the text; a grammar's end may
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()  # tokens that end the text, and are not in it
    n_indent: int = 0  # end where a line after the first begins with fewer blanks than this
    t_max_predict_ms: int = -1  # end with the first line that ends this long after the first token; 0 or less: never
    return_progress: bool = False  # tell how far the prompt is
    return_prompt: bool = False  # tell the prompt as a text
    special: bool = False  # render special tokens in the text
    n_probs: int = 0  # report the log-probabilities of each token and of this many of the likeliest; 0: none
    n_prompt_probs: int = 0  # the same for each token of the prompt, once: it is computed whole, and has no media
    grammar: str = ""  # what the text must be, in GBNF
    json_schema: str = ""  # or a JSON schema, as JSON; at most one of the three
    form_field: str = ""  # where the request has the one or the other, for a refusal to name
    answer_grammar: str = ""  # or a grammar in llguidance's Lark, of a whole answer with its calls
    inner_grammars: tuple[InnerGrammar, ...] = ()  # those that it refers to
    answer_opening: str | None = None  # of a call, where any text may come first (grammar.free_text); None: it may not
    answer_is_plain: bool = False  # it can do no harm, and is compiled without a trial
    marks: tuple[int, ...] = ()  # control tokens that stand in the text as marks (llamabox.marks)
    post_sampling_probs: bool = False  # those that the samplers leave, instead of the model's own
    cache_prompt: bool = True
    n_cache_reuse: int = 0  # behind the common prefix, move resident runs of this many cells or more; 0: none
    id_slot: int = -1  # wait for this slot; -1: any
    lora: LoraSet = ()
    tokens_per_second: int = 0  # the most that each sequence generates after its first token; 0: no limit
    by_token: bool = False  # tokens that come at once are told one by one: who reads them counts those of thoughts
    thought: ThoughtBudget | None = None  # None: thoughts may be as long as the answer
    drafting: DraftingParams = field(default_factory=DraftingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt, its texts tokenised and its media named, and what to make of it."""

    request_id: str
    prompt: Prompt
    params: GenerationParams = field(default_factory=GenerationParams)
    grammar: Grammar | None = None  # what `params` say of it, compiled
    stop: StopStrings | None = None  # those of `params`, compiled; None: there are none
    early: TokenMask | None = None  # what may come before `params.n_least` tokens are there; None: that is 0
    logit_bias: tuple[tuple[int, Bias], ...] | None = None  # what its texts became, to be told; None: it has none
    prompt_text: str | None = None  # where `params` want it
    n_audio: int = 0  # cells of sound in the prompt, to be told
    contents: Mapping[Media, object] = field(default_factory=dict, repr=False)  # what an Encoder makes rows of
    samplers: SamplerSource | None = None  # of its sequences; None: the engine makes them, while all wait for that
