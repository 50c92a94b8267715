"""Options of how requests share the model."""

from __future__ import annotations

from llamabox.options import values as v
from llamabox.options.option import COMPLETION, completion, switch

RUNNING_OPTIONS = (
    switch(
        COMPLETION, "--cache-prompt", "generation.cache_prompt", "reuse what is already computed of a prompt (default)",
    ),
    switch(COMPLETION, "--no-cache-prompt", "generation.cache_prompt", "compute every prompt anew", const=False),
    completion(
        "--cache-reuse", "generation.n_cache_reuse", v.integer(0), env="LLAMA_ARG_CACHE_REUSE",
        help="behind the common start of a prompt, move resident pieces of so many tokens or more instead of computing "
        "them: inexact, as a context shift; turns --cache-prompt on; 0 is off",
    ),
    completion(
        "-cram --cache-ram", "text.cache_ram", v.integer(-1), env="LLAMA_ARG_CACHE_RAM", metavar="MIB",
        help="host memory for what slots have to give up, MiB: copied back when a prompt begins with it; 0 is off, "
        "-1 no limit",
    ),
    completion(
        "-ctxcp --swa-checkpoints --ctx-checkpoints", "text.ctx_checkpoints", v.integer(0),
        env="LLAMA_ARG_CTX_CHECKPOINTS",
        help="of recurrent models and those with a sliding window: states kept of one text, as --cache-ram allows, so "
        "that a prompt which leaves it before its end is not computed anew; 0: none",
    ),
    completion(
        "-cms --checkpoint-min-step", "text.checkpoint_min_step", v.integer(0),
        env="LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT",
        help="of these states: tokens from a prompt's end to the first one farther back than its last messages; the "
        "next ones are four times as far each",
    ),
    completion(
        "-sps --slot-prompt-similarity", "text.slot_similarity", v.number(0, 1),
        help="a prompt takes over the slot that holds its start where at least this part of the slot is of use to it; "
        "else, and always with 0, the least recently used slot gets a copy",
    ),
    completion(
        "-np --parallel", "text.n_parallel", v.integer(1, 256),
        "slots: requests served at the same time; with --images: requests that may wait",
        env="LLAMA_ARG_N_PARALLEL",
    ),
    completion(
        "--max-waiting", "hosted.max_waiting", v.integer(1), env="LLAMABOX_MAX_WAITING",
        help="texts that may wait for a slot; while there are as many, further requests get a 503 that says when to "
        "come back",
    ),
    completion(
        "-tps --tokens-per-second", "text.tokens_per_second", v.integer(-1),
        help="let requests limit their speed by the header X-Request-Tokens-Per-Second, up to this; -1 measures it",
    ),
    switch(
        COMPLETION, "-cb --cont-batching", "text.cont_batching", "evaluate prompts beside running texts (default)",
        env="LLAMA_ARG_CONT_BATCHING",
    ),
    switch(
        COMPLETION, "-nocb --no-cont-batching", "text.cont_batching", "evaluate prompts only while no text is running",
        const=False,
    ),
    completion(
        "--gap-factor", "text.gap_factor", v.number(1.1, 1000), env="LLAMABOX_GAP_FACTOR", metavar="FACTOR",
        help="beside running texts, so much of a prompt is computed at a time that their next tokens come within this "
        "many times what they take without",
    ),
    switch(
        COMPLETION, "-kvu --kv-unified", "text.kv_unified",
        "one KV memory for all slots: less to copy, but an answer may depend in its low bits on its neighbours",
    ),
    switch(
        COMPLETION, "-no-kvu --no-kv-unified", "text.kv_unified", const=False,
        help="a KV memory of its own for each slot (default)",
    ),
    completion(
        "--pooling", "text.pooling", v.one_of(v.POOLINGS), metavar="none|mean|cls|last|rank",
        help="what a text's embedding is made of", default="the model's; last, or mean for encoders, if it has none",
    ),
    switch(COMPLETION, "--spm-infill", "text.spm_infill", "infill: the suffix goes before the prefix"),
    switch(COMPLETION, "--warmup", "text.warmup", "run the model once before serving (default)"),
    switch(COMPLETION, "--no-warmup", "text.warmup", "do not run the model once before serving", const=False),
)  # fmt: skip
