"""Options of speculation: who drafts, how much, and whose texts help whom."""

from __future__ import annotations

from llamabox.options import speculation as s
from llamabox.options.option import COMPLETION, Option, completion, switch
from llamabox.options.values import common as v
from llamabox.options.values.devices import names
from llamabox.options.values.weights import MAX_LAYERS, tensor_buffers

SPECULATION_OPTIONS = (
    completion(
        "--spec", "text.spec", v.one_of(s.SPEC), metavar="auto|off", env="LLAMABOX_SPEC",
        help="verify guesses at what follows together with the next token, where that pays; texts stay what they are",
    ),
    completion(
        "--spec-type", "text.spec_types", s.spec_types, metavar="TYPE,…", accumulates=True, env="LLAMA_ARG_SPEC_TYPE",
        default="all that there is",
        help="who may guess, in llama-server's words: ngram-simple, ngram-map-k, ngram-map-k4v or ngram-mod is a match "
        "in texts, ngram-cache counted n-grams, draft-simple the draft model, draft-mtp the heads that the model has; "
        "none is --spec off",
    ),
    Option(
        group=COMPLETION, flags=("--spec-default",), dest="text.spec_types", const=(s.TEXT,), accumulates=True,
        default="", help="matches in texts alone: --spec-type ngram-mod",
    ),
    completion(
        "--spec-draft-n-max", "text.spec_n_max", v.integer(0, 1024), env="LLAMA_ARG_SPEC_DRAFT_N_MAX",
        hidden="--spec-ngram-mod-n-max --spec-ngram-simple-size-m --spec-ngram-map-k-size-m "
        "--spec-ngram-map-k4v-size-m --spec-ngram-size-m",
        help="most tokens of a draft, whoever makes it; fewer where fewer pay; 0 is --spec off",
    ),
    completion(
        "--draft", "text.spec_n_max", v.at_least_zero, "the same", env="LLAMA_ARG_DRAFT", default="",
        hidden="--draft-n --draft-max",
    ),
    completion(
        "--spec-draft-n-min", "text.spec_n_min", v.integer(0, 1024), env="LLAMA_ARG_SPEC_DRAFT_N_MIN",
        hidden="--draft-min --draft-n-min", help="a draft of fewer tokens is not verified",
    ),
    completion(
        "--spec-draft-p-min", "text.spec_p_min", v.number(0, 1), metavar="P", env="LLAMA_ARG_SPEC_DRAFT_P_MIN",
        hidden="--draft-p-min", help="a draft ends before the first token that is less likely than this to be right",
    ),
    completion(
        "--spec-corpus", "text.spec_corpus", v.one_of(s.CORPUS), metavar="off|key|all", env="LLAMABOX_SPEC_CORPUS",
        help="whose finished answers help to guess: nobody's, those of requests with the same API key, or all",
    ),
    completion(
        "--lookup-ngram-min", "text.lookup_ngram_min", v.integer(0, 4), env="LLAMA_ARG_LOOKUP_NGRAM_MIN",
        help="guess by counts of what followed n-grams, of this many to 4 tokens; 0 is off, unless -lcs, -lcd or "
        "ngram-cache ask for it, then 1",
    ),
    completion(
        "-lcs --lookup-cache-static", "text.lookup_cache_static", v.word, metavar="FILE", default="",
        env="LLAMA_ARG_LOOKUP_CACHE_STATIC", help="counts to begin with, which stay as they are",
    ),
    completion(
        "-lcd --lookup-cache-dynamic", "text.lookup_cache_dynamic", v.word, metavar="FILE", default="",
        env="LLAMA_ARG_LOOKUP_CACHE_DYNAMIC", help="counts that grow with each text: read at the start, if the file is "
        "there, and written at the end",
    ),
    completion(
        "-md --model-draft", "text.model_draft", v.word, metavar="FILE", env="LLAMA_ARG_MODEL_DRAFT", default="",
        help="GGUF file of a small model with the same vocabulary, which guesses what this one says",
    ),
    completion(
        "--spec-draft-model", "text.model_draft", v.word, "the same", metavar="FILE", default="",
        env="LLAMA_ARG_SPEC_DRAFT_MODEL",
    ),
    completion(
        "-ngld --gpu-layers-draft", "text.n_gpu_layers_draft", v.gpu_layers, metavar="N|auto|all",
        env="LLAMA_ARG_N_GPU_LAYERS_DRAFT", hidden="--n-gpu-layers-draft --spec-draft-ngl",
        help="-ngl of the draft model",
    ),
    completion(
        "-devd --device-draft", "text.devices_draft", names, metavar="NAME,…", hidden="--spec-draft-device",
        default="as -dev", help="-dev of the draft model",
    ),
    completion(
        "-otd --override-tensor-draft", "text.tensor_buffers_draft", tensor_buffers, metavar="PATTERN=TYPE,…",
        accumulates=True, default="", hidden="--spec-draft-override-tensor", help="-ot of the draft model",
    ),
    switch(
        COMPLETION, "-cmoed --cpu-moe-draft", "cpu_moe_draft", hidden="--spec-draft-cpu-moe",
        env="LLAMA_ARG_SPEC_DRAFT_CPU_MOE", help="-cmoe of the draft model",
    ),
    completion(
        "-ncmoed --n-cpu-moe-draft", "n_cpu_moe_draft", v.integer(0, MAX_LAYERS), default="",
        hidden="--spec-draft-n-cpu-moe --spec-draft-ncmoe", env="LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
        help="-ncmoe of the draft model",
    ),
    completion(
        "-ctkd --cache-type-k-draft", "text.type_k_draft", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        env="LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", hidden="--spec-draft-type-k", help="-ctk of the draft model",
    ),
    completion(
        "-ctvd --cache-type-v-draft", "text.type_v_draft", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        env="LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", hidden="--spec-draft-type-v", help="-ctv of the draft model",
    ),
    completion(
        "-td --threads-draft", "text.n_threads_draft", v.integer(-1024, 1024), hidden="--spec-draft-threads",
        default="as -t", help="-t of the draft model; 0 or less: as -t",
    ),
    completion(
        "-tbd --threads-batch-draft", "text.n_threads_batch_draft", v.integer(-1024, 1024),
        hidden="--spec-draft-threads-batch", default="as -tb", help="-tb of the draft model; 0 or less: as -tb",
    ),
)  # fmt: skip
