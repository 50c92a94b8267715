"""Every command-line option, in one table. Parsing, `--help` and the README's list come from it.

An option's default is not here: it is that of the configuration field the option writes to, named by `dest`:

    text.X        workers.protocol.TextConfig
    server.X      server.config.ServerConfig
    generation.X  engine.request.GenerationParams
    sampling.X    engine.request.SamplingParams
    X             what cli.py itself acts on
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llamabox import values as v

GENERAL = "general"
SERVER = "server"
COMPLETION = "server/completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. Without `parse` it is a switch that stores `const`."""

    group: str
    flags: tuple[str, ...]
    dest: str
    help: str
    metavar: str = ""
    parse: Callable[[str], object] | None = None
    const: object = True
    words: frozenset[str] = frozenset()  # not empty: the value may be left out, and only one of these is a value
    accumulates: bool = False  # several uses add up instead of the last one winning
    env: str | None = None
    parse_env: Callable[[str], object] | None = None  # where it differs from `parse`
    hidden: tuple[str, ...] = ()  # further spellings, not printed
    default: str | None = None  # printed instead of the field's value; "" prints none


def _switch(group: str, flags: str, dest: str, text: str, const: object = True, env: str | None = None) -> Option:
    parse_env = v.env_flag if env else None
    return Option(
        group=group,
        flags=tuple(flags.split()),
        dest=dest,
        help=text,
        const=const,
        env=env,
        parse_env=parse_env,
        default="",
    )


def _valued(
    group: str,
    flags: str,
    dest: str,
    parse: Callable[[str], object],
    text: str,
    *,
    metavar: str = "N",
    env: str | None = None,
    hidden: str = "",
    default: str | None = None,
    accumulates: bool = False,
) -> Option:
    return Option(
        group=group,
        flags=tuple(flags.split()),
        dest=dest,
        help=text,
        metavar=metavar,
        parse=parse,
        env=env,
        hidden=tuple(hidden.split()),
        default=default,
        accumulates=accumulates,
    )


_text = partial(_valued, COMPLETION)

_GENERAL = (
    _switch(GENERAL, "-h --help --usage", "help", "print this text and exit"),
    _switch(GENERAL, "--version", "version", "print the versions and the build, and exit"),
    _switch(GENERAL, "--system-info", "system_info", "print what the native library says of this machine, and exit"),
    _switch(GENERAL, "--list-devices", "list_devices", "print the devices that can compute, and exit"),
    _switch(GENERAL, "-v --verbose --log-verbose", "text.verbosity", "log everything, prompts included", const=99),
    _valued(
        GENERAL, "-lv --verbosity --log-verbosity", "text.verbosity", v.integer(-1, 99), metavar="V",
        text="how much to log: 0 the usual and each request, 1 health checks as well, 2 everything, prompts included",
        env="LLAMA_LOG_VERBOSITY",
    ),
    Option(
        group=GENERAL, flags=("--log-colors",), dest="text.log_colors", metavar="[on|off]", parse=v.one_of(v.SWITCH),
        words=frozenset(v.SWITCH), default="", help="colour the log",
    ),
    _switch(GENERAL, "--log-json", "text.log_json", "log JSON, an object a line, never coloured"),
    _valued(
        GENERAL, "--native", "text.native", v.word, metavar="DIR", env="LLAMABOX_NATIVE",
        text="use the native libraries that build_native.py put there", default="those inside the package",
    ),
)  # fmt: skip

_SERVER = (
    _valued(
        SERVER, "--host", "server.hosts", v.hosts, metavar="HOST", env="LLAMA_ARG_HOST",
        text="address to listen on; a comma list for several; a path ending in .sock is a unix socket",
    ),
    _valued(
        SERVER, "--port", "server.port", v.integer(1, 65535), "port to listen on", metavar="PORT", env="LLAMA_ARG_PORT",
    ),
    _valued(SERVER, "-to --timeout", "server.timeout", v.seconds, "seconds that a request may be silent"),
    _valued(SERVER, "--conn-keepalive", "server.keep_alive", v.seconds, "seconds that an idle connection is kept"),
    _valued(
        SERVER, "--max-body", "server.max_body", v.mebibytes, "largest request body, MiB", metavar="MIB", default="64",
    ),
    _valued(
        SERVER, "--ssl-key-file", "server.ssl_key_file", v.word, metavar="FILE", env="LLAMA_ARG_SSL_KEY_FILE",
        text="private key for TLS, PEM; needs --ssl-cert-file", default="",
    ),
    _valued(
        SERVER, "--ssl-cert-file", "server.ssl_cert_file", v.word, metavar="FILE", env="LLAMA_ARG_SSL_CERT_FILE",
        text="certificate for TLS with those that sign it, PEM; needs --ssl-key-file", default="",
    ),
    _valued(
        SERVER, "--api-prefix", "server.api_prefix", v.api_prefix, metavar="PATH", env="LLAMA_ARG_API_PREFIX",
        text="what every route's path begins with, that of /health too",
    ),
    _valued(
        SERVER, "--cors-origins", "server.cors_origins", v.origins, metavar="ORIGIN,…", env="LLAMA_ARG_CORS_ORIGINS",
        text="web pages that may call, as https://page.example; localhost is this machine with any port, * any page",
    ),
    _valued(
        SERVER, "-m --model", "text.model", v.word, metavar="FILE", env="LLAMA_ARG_MODEL",
        text="GGUF file; of a split one the first part",
        default="a small demo model, fetched once, with template chatml",
    ),
    _valued(
        SERVER, "-a --alias", "server.alias", v.word, metavar="NAME", env="LLAMA_ARG_MODEL_ALIAS",
        text="the model's name in the API", default="the model's path",
    ),
    _valued(
        SERVER, "-s --seed", "sampling.seed", v.seed, default="-1", text="seed; -1 draws one for each request",
    ),
    _switch(SERVER, "--slots", "server.enable_slots", "serve GET /slots", env="LLAMA_ARG_SLOTS"),
    _switch(SERVER, "--metrics", "server.enable_metrics", "serve GET /metrics", env="LLAMA_ARG_METRICS"),
    _valued(
        SERVER, "--slot-save-path", "server.slot_save_path", v.folder, metavar="DIR", default="",
        text="with --slots: let clients save and restore slots as files in this folder",
    ),
    _valued(
        SERVER, "--api-key", "server.api_keys", v.api_keys, metavar="KEY", accumulates=True, env="LLAMA_API_KEY",
        text="ask clients for this key; a comma list or several times for several", default="",
    ),
    _valued(
        SERVER, "--api-key-file", "server.api_keys", v.api_keys_of_file, metavar="FILE", accumulates=True,
        text="the same from a file, one key a line", default="",
    ),
)  # fmt: skip

_MODEL = (
    _text(
        "-ngl --gpu-layers", "text.n_gpu_layers", v.gpu_layers, metavar="N|auto|all",
        env="LLAMA_ARG_N_GPU_LAYERS", hidden="--n-gpu-layers", text="layers kept on the GPU; negative is all",
    ),
    _text(
        "-sm --split-mode", "text.split_mode", v.one_of(v.SPLIT_MODES), metavar="none|layer|row",
        text="spread the model over the GPUs: not, by layers, or by rows of its matrices",
    ),
    _text(
        "-ts --tensor-split", "text.tensor_split", v.tensor_split, metavar="N,N,…", default="by their memory",
        text="share of each GPU, separated by , or /",
    ),
    _text("-mg --main-gpu", "text.main_gpu", v.integer(0), "the GPU of -sm none, and of small tensors with -sm row"),
    _text(
        "--override-kv", "text.kv_overrides", v.kv_override, metavar="KEY=TYPE:VALUE", accumulates=True, default="",
        text="replace a value of the model's metadata; TYPE is int, float, bool or str; several times for several",
    ),
    _switch(COMPLETION, "--mlock", "text.mlock", "lock the model in memory"),
    _switch(COMPLETION, "--no-mmap", "text.mmap", "read the model instead of mapping its file", const=False),
    _text(
        "--numa", "text.numa", v.one_of(v.NUMA), metavar="distribute|isolate|numactl",
        text="place threads on a machine with several memory nodes",
    ),
    _text(
        "--chat-template", "server.chat_template", v.word, metavar="TEMPLATE", env="LLAMA_ARG_CHAT_TEMPLATE",
        text="Jinja template, or the name of a built-in one", default="the model's, else chatml",
    ),
    _text(
        "--chat-template-file", "server.chat_template", v.file_text, metavar="FILE",
        text="the same from a file", default="",
    ),
    _text(
        "-t --threads", "text.n_threads", v.integer(-1024, 1024), env="LLAMA_ARG_THREADS",
        text="threads of a decode; 0 or less takes one a physical core",
    ),
    _text(
        "-tb --threads-batch", "text.n_threads_batch", v.integer(-1024, 1024), default="as -t",
        text="threads of a prompt's evaluation; 0 or less takes all processors",
    ),
    _text(
        "-c --ctx-size", "text.n_ctx", v.integer(0), env="LLAMA_ARG_CTX_SIZE",
        text="tokens of context over all slots; 0 takes what the model was trained for",
    ),
    _switch(
        COMPLETION, "--no-context-shift", "text.context_shift", "end a text at the context's limit instead of shifting",
        const=False,
    ),
    _text(
        "-n --predict", "generation.n_predict", v.integer(-2), env="LLAMA_ARG_N_PREDICT", hidden="--n-predict",
        text="tokens to generate, also the most a request may ask for; -1 is no limit, -2 until the context is full",
    ),
    _text(
        "-b --batch-size", "text.n_batch", v.integer(1), "tokens of one batch", env="LLAMA_ARG_BATCH",
    ),
    _text(
        "-ub --ubatch-size", "text.n_ubatch", v.integer(1), env="LLAMA_ARG_UBATCH",
        text="tokens that are computed at once, at most a batch",
    ),
    _text("--keep", "generation.n_keep", v.integer(-1), "tokens kept at a context shift; -1 the whole prompt"),
    Option(
        group=COMPLETION, flags=("-fa", "--flash-attn"), dest="text.flash_attn", metavar="[on|off|auto]",
        parse=v.one_of(v.FLASH_ATTN), const="on", words=frozenset(v.FLASH_ATTN), env="LLAMA_ARG_FLASH_ATTN",
        parse_env=v.env_flash_attn, help="flash attention; without a value: on",
    ),
    _switch(COMPLETION, "--special", "generation.special", "render special tokens in the text"),
)  # fmt: skip

_SAMPLING = (
    _text(
        "--samplers", "sampling.samplers", v.samplers, "samplers in order, separated by ;", metavar="SAMPLERS",
    ),
    _text(
        "--sampling-seq", "sampling.samplers", v.sampling_seq, metavar="LETTERS", default="dkypmxt",
        text="the same, a letter each: e penalties, d dry, s top_n_sigma, k top_k, y typ_p, p top_p, m min_p, x xtc, "
        "t temperature",
    ),
    _text("--temp", "sampling.temperature", v.number(0, clamp=True), "temperature; 0 takes the likeliest"),
    _text("--top-k", "sampling.top_k", v.at_least_zero, "keep the N likeliest tokens; 0 is off"),
    _text("--top-p", "sampling.top_p", v.number(0, 1, clamp=True), "keep the likeliest with this sum; 1 is off"),
    _text(
        "--min-p", "sampling.min_p", v.number(0, 1, clamp=True), "drop below this part of the likeliest; 0 is off"
    ),
    _text("--xtc-probability", "sampling.xtc_probability", v.number(0, 1, clamp=True), "XTC chance; 0 is off"),
    _text(
        "--xtc-threshold", "sampling.xtc_threshold", v.number(0, 1, clamp=True), "XTC threshold; above 0.5 is off"
    ),
    _text("--typical", "sampling.typical_p", v.number(0, 1, clamp=True), "locally typical sampling; 1 is off"),
    _text(
        "--top-nsigma", "sampling.top_n_sigma", v.number(), hidden="--top-n-sigma",
        text="keep within N standard deviations of the largest logit; negative is off",
    ),
    _text(
        "--repeat-last-n", "sampling.repeat_last_n", v.integer(-1),
        text="tokens that the penalties look back on; 0 is off, -1 the context",
    ),
    _text("--repeat-penalty", "sampling.repeat_penalty", v.number(above=0), "penalise repetition; 1 is off"),
    _text("--presence-penalty", "sampling.presence_penalty", v.number(), "penalise what occurred; 0 is off"),
    _text("--frequency-penalty", "sampling.frequency_penalty", v.number(), "penalise by count; 0 is off"),
    _text("--dry-multiplier", "sampling.dry_multiplier", v.number(0), "DRY multiplier; 0 is off"),
    _text("--dry-base", "sampling.dry_base", v.number(1), "DRY base"),
    _text(
        "--dry-allowed-length", "sampling.dry_allowed_length", v.integer(0), "length that DRY allows to repeat",
        hidden="--dry--allowed-length",
    ),
    _text(
        "--dry-penalty-last-n", "sampling.dry_penalty_last_n", v.integer(-1),
        text="tokens that DRY looks back on; 0 is off, -1 the context",
    ),
    _text(
        "--dry-sequence-breaker", "sampling.dry_sequence_breakers", v.sequence_breaker, metavar="TEXT",
        accumulates=True, text="breaks a repetition for DRY; the first use drops the defaults, none leaves no breaker",
        default=r"\n : \" *",
    ),
    _text("--dynatemp-range", "sampling.dynatemp_range", v.number(0), "temperature varies by ±N; 0 is off"),
    _text("--dynatemp-exp", "sampling.dynatemp_exponent", v.number(), "exponent of the varying temperature"),
    _text(
        "--mirostat", "sampling.mirostat", v.integer(0, 2), "Mirostat 1 or 2 in place of the samplers; 0 is off"
    ),
    _text("--mirostat-lr", "sampling.mirostat_eta", v.number(0), "Mirostat's learning rate, eta"),
    _text("--mirostat-ent", "sampling.mirostat_tau", v.number(0), "Mirostat's target entropy, tau"),
    _text(
        "-l --logit-bias", "sampling.logit_bias", v.logit_bias, metavar="ID±BIAS", accumulates=True, default="",
        text="change a token's logit, as 15043+1 or 15043-1; several times for several",
    ),
)  # fmt: skip

_RUNNING = (
    _switch(
        COMPLETION, "--cache-prompt", "generation.cache_prompt", "reuse what is already computed of a prompt (default)",
    ),
    _switch(COMPLETION, "--no-cache-prompt", "generation.cache_prompt", "compute every prompt anew", const=False),
    _text(
        "-np --parallel", "text.n_parallel", v.integer(1, 256), "slots: requests served at the same time",
        env="LLAMA_ARG_N_PARALLEL",
    ),
    _switch(
        COMPLETION, "-cb --cont-batching", "text.cont_batching", "evaluate prompts beside running texts (default)",
        env="LLAMA_ARG_CONT_BATCHING",
    ),
    _switch(
        COMPLETION, "-nocb --no-cont-batching", "text.cont_batching", "evaluate prompts only while no text is running",
        const=False,
    ),
    _switch(
        COMPLETION, "--kv-unified", "text.kv_unified",
        "one KV memory for all slots: less to copy, but an answer may depend in its low bits on its neighbours",
    ),
    _switch(
        COMPLETION, "--no-kv-unified", "text.kv_unified", "a KV memory of its own for each slot (default)", const=False,
    ),
    _switch(COMPLETION, "--no-warmup", "text.warmup", "do not run the model once before serving", const=False),
)  # fmt: skip

_MEMORY = (
    _switch(COMPLETION, "-nkvo --no-kv-offload", "text.offload_kqv", "keep the KV memory off the GPU", const=False),
    _text(
        "-ctk --cache-type-k", "text.type_k", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        text=f"type of the keys in the KV memory: {' '.join(v.CACHE_TYPES)}",
    ),
    _text(
        "-ctv --cache-type-v", "text.type_v", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        text="the same of the values; all but f32, f16 and bf16 need flash attention",
    ),
    _switch(COMPLETION, "--swa-full", "text.swa_full", "keep all of the context in models with a sliding window"),
    _text(
        "-dt --defrag-thold", "defrag_thold", v.number(), "has no effect any more", env="LLAMA_ARG_DEFRAG_THOLD",
        default="",
    ),
    _text(
        "--rope-scaling", "text.rope_scaling", v.one_of(v.ROPE_SCALINGS), metavar="none|linear|yarn",
        text="how positions beyond the training context are scaled", default="the model's",
    ),
    _text(
        "--rope-scale", "text.rope_freq_scale", v.rope_scale, default="the model's",
        text="context is this many times the training context; the same as --rope-freq-scale 1/N",
    ),
    _text(
        "--rope-freq-base", "text.rope_freq_base", v.number(0), "RoPE base frequency; 0 is the model's",
    ),
    _text(
        "--rope-freq-scale", "text.rope_freq_scale", v.number(0), "RoPE frequency scale; 0 is the model's",
    ),
    _text(
        "--yarn-orig-ctx", "text.yarn_orig_ctx", v.integer(0), "YaRN: training context; 0 is the model's",
    ),
    _text(
        "--yarn-ext-factor", "text.yarn_ext_factor", v.number(),
        text="YaRN: mix of extrapolation, 0 is interpolation alone; negative is the model's",
    ),
    _text(
        "--yarn-attn-factor", "text.yarn_attn_factor", v.number(), default="the model's, usually 1",
        text="YaRN: scale of the attention, with --yarn-ext-factor 0 alone; negative is the model's",
    ),
    _text(
        "--yarn-beta-fast", "text.yarn_beta_fast", v.number(), default="the model's, usually 32",
        text="YaRN: low correction bound; negative is the model's",
    ),
    _text(
        "--yarn-beta-slow", "text.yarn_beta_slow", v.number(), default="the model's, usually 1",
        text="YaRN: high correction bound; negative is the model's",
    ),
)  # fmt: skip

OPTIONS: tuple[Option, ...] = _GENERAL + _SERVER + _MODEL + _SAMPLING + _RUNNING + _MEMORY
"""In the order of `--help`."""
