"""Options of how requests share the model."""

from __future__ import annotations

from llamabox.chat.formats.known import FORMS
from llamabox.options.option import COMPLETION, completion, switch
from llamabox.options.values import chat as c
from llamabox.options.values import common as v

CHAT_OPTIONS = (
    switch(COMPLETION, "--jinja", "jinja", "render chat templates as Jinja (always so)", env="LLAMA_ARG_JINJA"),
    switch(COMPLETION, "--no-jinja", "jinja", "has no effect: chat templates are always Jinja", const=False),
    completion(
        "--chat-template-kwargs", "chat.template_kwargs", c.template_kwargs, metavar="JSON", default="",
        env="LLAMA_ARG_CHAT_TEMPLATE_KWARGS",
        help="an object of further variables for the chat template; those of a request count more",
    ),
    completion(
        "--chat-format", "chat.form", v.one_of(c.CHAT_FORMATS), metavar="NAME", default="as the template shows",
        help=f"how the model writes thoughts and calls of tools, where its template misleads: {', '.join(FORMS)}",
    ),
    completion(
        "--reasoning-format", "chat.reasoning_format", v.one_of(c.REASONING_FORMATS), env="LLAMA_ARG_THINK",
        metavar="FORMAT",
        help="where a model's thoughts stand in a reply: auto and deepseek in reasoning_content, deepseek-legacy in a "
        "plain reply there and in content, in a stream in content alone, none in content as the model writes them",
    ),
    completion(
        "-rea --reasoning", "chat.thinks", v.one_of(c.ON_OFF_AUTO), metavar="on|off|auto", env="LLAMA_ARG_REASONING",
        help="whether models think before they answer, by the variables of their templates; where a template has none, "
        "off ends a thought as soon as it begins", default="auto",
    ),
    completion(
        "--reasoning-effort", "chat.effort", v.one_of(c.EFFORTS), metavar="LEVEL", env="LLAMA_ARG_REASONING_EFFORT",
        help="how much models think, where their templates have a variable for it: none, minimal, low, medium, high, "
        "xhigh, max, or default for what the template has", default="default",
    ),
    completion(
        "--reasoning-budget", "chat.thought_budget", v.integer(-1), env="LLAMA_ARG_THINK_BUDGET",
        help="tokens that the thoughts of an answer may have; then their end is said for the model. 0: at once, "
        "-1: no limit",
    ),
    completion(
        "--reasoning-budget-message", "chat.budget_message", v.word, metavar="TEXT", default="",
        env="LLAMA_ARG_THINK_BUDGET_MESSAGE", help="said before the end of a thought that has used up its tokens",
    ),
    switch(
        COMPLETION, "--reasoning-preserve", "chat.keeps_thoughts", env="LLAMA_ARG_REASONING_PRESERVE",
        help="show the thoughts of earlier turns that clients send to templates that can leave them out (default)",
    ),
    switch(
        COMPLETION, "--no-reasoning-preserve", "chat.keeps_thoughts", const=False,
        help="have templates that can leave out the thoughts of earlier turns do so",
    ),
    switch(
        COMPLETION, "--prefill-assistant", "chat.prefills", env="LLAMA_ARG_PREFILL_ASSISTANT",
        help="continue a last message of the assistant (default)",
    ),
    switch(
        COMPLETION, "--no-prefill-assistant", "chat.prefills", const=False,
        help="take a last message of the assistant as one of the history, unless a request says continue_final_message",
    ),
    switch(
        COMPLETION, "--skip-chat-parsing", "chat.skips_parsing", env="LLAMA_ARG_SKIP_CHAT_PARSING",
        help="tell all of an answer as content, with thoughts and calls as the model writes them",
    ),
    switch(COMPLETION, "--no-skip-chat-parsing", "chat.skips_parsing", "the opposite (default)", const=False),
)  # fmt: skip

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
        "one KV memory for all slots: each may use all of it, and less is copied, but an answer may depend in its low "
        "bits on its neighbours",
    ),
    completion(
        "--kv-unified-per-slot", "text.n_ctx_slot", v.integer(8), env="LLAMA_ARG_KV_UNIFIED_PER_SLOT", default="",
        help="most tokens that one slot may use; without -c there is a memory of this times -np",
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
