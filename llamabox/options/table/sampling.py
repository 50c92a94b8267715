"""Options of how the next token is chosen where a request does not say."""

from __future__ import annotations

from llamabox.options import defaults
from llamabox.options.option import COMPLETION, completion, switch
from llamabox.options.values import common as v
from llamabox.options.values.files import file_text, json_schema_of_file

SAMPLING_OPTIONS = (
    completion(
        "--samplers", "sampling.samplers", v.samplers, "samplers in order, separated by ;", metavar="SAMPLERS",
    ),
    completion(
        "--sampling-seq", "sampling.samplers", v.sampling_seq, metavar="LETTERS", default=defaults.sampler_letters,
        hidden="--sampler-seq",
        help="the same, a letter each: e penalties, d dry, s top_n_sigma, k top_k, y typ_p, p top_p, m min_p, x xtc, "
        "t temperature, i infill, a adaptive_p",
    ),
    completion(
        "--temp", "sampling.temperature", v.number(0, clamp=True), "temperature; 0 takes the likeliest",
        hidden="--temperature", env="LLAMA_ARG_TEMPERATURE",
    ),
    completion("--top-k", "sampling.top_k", v.at_least_zero, "keep the N likeliest tokens; 0 is off"),
    completion("--top-p", "sampling.top_p", v.number(0, 1, clamp=True), "keep the likeliest with this sum; 1 is off"),
    completion(
        "--min-p", "sampling.min_p", v.number(0, 1, clamp=True), "drop below this part of the likeliest; 0 is off"
    ),
    completion("--xtc-probability", "sampling.xtc_probability", v.number(0, 1, clamp=True), "XTC chance; 0 is off"),
    completion(
        "--xtc-threshold", "sampling.xtc_threshold", v.number(0, 1, clamp=True), "XTC threshold; above 0.5 is off"
    ),
    completion(
        "--typical", "sampling.typical_p", v.number(0, 1, clamp=True), "locally typical sampling; 1 is off",
        hidden="--typical-p",
    ),
    completion(
        "--top-nsigma", "sampling.top_n_sigma", v.number(), hidden="--top-n-sigma",
        help="keep within N standard deviations of the largest logit; negative is off",
    ),
    completion(
        "--repeat-last-n", "sampling.repeat_last_n", v.integer(-1),
        help="tokens that the penalties look back on; 0 is off, -1 the context",
    ),
    completion("--repeat-penalty", "sampling.repeat_penalty", v.number(above=0), "penalise repetition; 1 is off"),
    completion("--presence-penalty", "sampling.presence_penalty", v.number(), "penalise what occurred; 0 is off"),
    completion("--frequency-penalty", "sampling.frequency_penalty", v.number(), "penalise by count; 0 is off"),
    switch(COMPLETION, "--penalize-nl", "sampling.penalize_nl", "let the penalties reach the newline token as well"),
    completion("--dry-multiplier", "sampling.dry_multiplier", v.number(0), "DRY multiplier; 0 is off"),
    completion("--dry-base", "sampling.dry_base", v.number(1), "DRY base"),
    completion(
        "--dry-allowed-length", "sampling.dry_allowed_length", v.integer(0), "length that DRY allows to repeat",
        hidden="--dry--allowed-length",
    ),
    completion(
        "--dry-penalty-last-n", "sampling.dry_penalty_last_n", v.integer(-1),
        help="tokens that DRY looks back on; 0 is off, -1 the context",
    ),
    completion(
        "--dry-sequence-breaker", "sampling.dry_sequence_breakers", v.sequence_breaker, metavar="TEXT",
        accumulates=True, help="breaks a repetition for DRY; the first use drops the defaults, none leaves no breaker",
        default=defaults.escaped,
    ),
    switch(COMPLETION, "-e --escape", "escape", r"read \n and the like in --dry-sequence-breaker as in C (default)"),
    switch(COMPLETION, "--no-escape", "escape", "take --dry-sequence-breaker as it is typed", const=False),
    completion("--dynatemp-range", "sampling.dynatemp_range", v.number(0), "temperature varies by ±N; 0 is off"),
    completion("--dynatemp-exp", "sampling.dynatemp_exponent", v.number(), "exponent of the varying temperature"),
    completion(
        "--mirostat", "sampling.mirostat", v.integer(0, 2), "Mirostat 1 or 2 in place of the samplers; 0 is off"
    ),
    completion("--mirostat-lr", "sampling.mirostat_eta", v.number(0), "Mirostat's learning rate, eta"),
    completion("--mirostat-ent", "sampling.mirostat_tau", v.number(0), "Mirostat's target entropy, tau"),
    completion(
        "--adaptive-target", "sampling.adaptive_target", v.number(high=1),
        help="probability near which the sampler adaptive_p keeps its choices, 0 to 1; negative is off",
    ),
    completion(
        "--adaptive-decay", "sampling.adaptive_decay", v.number(0, 0.99),
        help="how slowly adaptive_p forgets what it chose, over 1/(1-N) tokens",
    ),
    switch(
        COMPLETION, "--ignore-eos", "sampling.ignore_eos",
        "never choose a token that ends the text, so that it goes on to its limit",
    ),
    completion(
        "-l --logit-bias", "sampling.logit_bias", v.logit_bias, metavar="ID±BIAS", accumulates=True, default="",
        help="change a token's logit, as 15043+1 or 15043-1; several times for several",
    ),
    completion(
        "--grammar", "generation.grammar", str, "grammar (GBNF) of the answers to requests that bring none",
        metavar="GBNF", default="",
    ),
    completion("--grammar-file", "generation.grammar", file_text, "the same from a file", metavar="FILE", default=""),
    completion(
        "-j --json-schema", "generation.json_schema", v.json_schema, metavar="JSON", default="",
        help="JSON schema of the answers to requests that bring none; {} is any object",
    ),
    completion(
        "-r --reverse-prompt", "generation.stop", v.stop_string, metavar="TEXT", accumulates=True, default="",
        help="end texts before this one, where a request does not name its own; several times for several",
    ),
    completion(
        "-jf --json-schema-file", "generation.json_schema", json_schema_of_file, "the same from a file",
        metavar="FILE", default="",
    ),
)  # fmt: skip
