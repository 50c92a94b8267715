"""Options of the KV memory and of positions."""

from __future__ import annotations

from llamabox.options.option import COMPLETION, completion, switch
from llamabox.options.values import common as v

MEMORY_OPTIONS = (
    switch(
        COMPLETION, "--op-offload", "text.op_offload",
        "let a GPU compute large batches in layers whose weights the CPU has (default)",
    ),
    switch(COMPLETION, "--no-op-offload", "text.op_offload", "leave these to the CPU", const=False),
    switch(COMPLETION, "-kvo --kv-offload", "text.offload_kqv", "keep the KV memory on the GPU (default)"),
    switch(COMPLETION, "-nkvo --no-kv-offload", "text.offload_kqv", "keep it off the GPU", const=False),
    completion(
        "-ctk --cache-type-k", "text.type_k", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        help=f"type of the keys in the KV memory: {' '.join(v.CACHE_TYPES)}",
    ),
    completion(
        "-ctv --cache-type-v", "text.type_v", v.one_of(v.CACHE_TYPES), metavar="TYPE",
        help="the same of the values; all but f32, f16 and bf16 need flash attention",
    ),
    switch(COMPLETION, "--swa-full", "text.swa_full", "keep all of the context in models with a sliding window"),
    completion(
        "-dt --defrag-thold", "defrag_thold", v.number(), "has no effect any more", env="LLAMA_ARG_DEFRAG_THOLD",
        default="",
    ),
    completion(
        "--rope-scaling", "text.rope_scaling", v.one_of(v.ROPE_SCALINGS), metavar="none|linear|yarn",
        help="how positions beyond the training context are scaled", default="the model's",
    ),
    completion(
        "--rope-scale", "text.rope_freq_scale", v.rope_scale, default="the model's",
        help="context is this many times the training context; the same as --rope-freq-scale 1/N",
    ),
    completion(
        "--rope-freq-base", "text.rope_freq_base", v.number(0), "RoPE base frequency; 0 is the model's",
    ),
    completion(
        "--rope-freq-scale", "text.rope_freq_scale", v.number(0), "RoPE frequency scale; 0 is the model's",
    ),
    completion(
        "--yarn-orig-ctx", "text.yarn_orig_ctx", v.integer(0), "YaRN: training context; 0 is the model's",
    ),
    completion(
        "--yarn-ext-factor", "text.yarn_ext_factor", v.number(),
        help="YaRN: mix of extrapolation, 0 is interpolation alone; negative is the model's",
    ),
    completion(
        "--yarn-attn-factor", "text.yarn_attn_factor", v.number(), default="the model's, usually 1",
        help="YaRN: scale of the attention, with --yarn-ext-factor 0 alone; negative is the model's",
    ),
    completion(
        "--yarn-beta-fast", "text.yarn_beta_fast", v.number(), default="the model's, usually 32",
        help="YaRN: low correction bound; negative is the model's",
    ),
    completion(
        "--yarn-beta-slow", "text.yarn_beta_slow", v.number(), default="the model's, usually 1",
        help="YaRN: high correction bound; negative is the model's",
    ),
)  # fmt: skip
