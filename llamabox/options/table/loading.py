"""Options of how the model is loaded and how large its context is."""

from __future__ import annotations

from llamabox.options.option import COMPLETION, Option, completion, switch
from llamabox.options.values import common as v
from llamabox.options.values.devices import names
from llamabox.options.values.files import file_text
from llamabox.options.values.weights import MAX_LAYERS, tensor_buffers

LOADING_OPTIONS = (
    completion(
        "-ngl --gpu-layers", "text.n_gpu_layers", v.gpu_layers, metavar="N|auto|all",
        env="LLAMA_ARG_N_GPU_LAYERS", hidden="--n-gpu-layers", help="layers kept on the GPU; negative is all",
    ),
    completion(
        "-sm --split-mode", "text.split_mode", v.one_of(v.SPLIT_MODES), metavar="none|layer|row",
        help="spread the model over the GPUs: not, by layers, or by rows of its matrices",
    ),
    completion(
        "-ts --tensor-split", "text.tensor_split", v.tensor_split, metavar="N,N,…", default="by their memory",
        help="share of each GPU, separated by , or /",
    ),
    completion(
        "-mg --main-gpu", "text.main_gpu", v.integer(0), "the GPU of -sm none, and of small tensors with -sm row",
    ),
    completion(
        "-dev --device", "text.devices", names, metavar="NAME,…", default="all GPUs and RPC servers",
        help="GPUs to use, in this order, as --list-devices calls them; none for the CPU alone",
    ),
    completion(
        "-ot --override-tensor", "text.tensor_buffers", tensor_buffers, metavar="PATTERN=TYPE,…", accumulates=True,
        default="", env="LLAMA_ARG_OVERRIDE_TENSOR",
        help=r"keep tensors in whose names the regular expression is found in buffers of this type, a device's name as "
        r"a rule: \.ffn_.*_exps=CPU; the first that fits counts",
    ),
    switch(
        COMPLETION, "-cmoe --cpu-moe", "cpu_moe", env="LLAMA_ARG_CPU_MOE",
        help="keep the weights of all experts on the CPU",
    ),
    completion(
        "-ncmoe --n-cpu-moe", "n_cpu_moe", v.integer(0, MAX_LAYERS), default="", env="LLAMA_ARG_N_CPU_MOE",
        help="the same in the first N layers",
    ),
    completion(
        "-ncffn --n-cpu-ffn", "n_cpu_ffn", v.integer(0, MAX_LAYERS), default="", env="LLAMA_ARG_N_CPU_FFN",
        help="keep the feed-forward weights of the first N layers on the CPU, those of experts not",
    ),
    completion(
        "--override-kv", "text.kv_overrides", v.kv_override, metavar="KEY=TYPE:VALUE", accumulates=True, default="",
        help="replace a value of the model's metadata; TYPE is int, float, bool or str; several times for several",
    ),
    completion(
        "--control-vector", "text.control_vectors", v.plain_file, metavar="FILE", accumulates=True, default="",
        help="add a control vector (GGUF) to what the layers put out; several times for several",
    ),
    completion(
        "--control-vector-scaled", "text.control_vectors", v.scaled_file, metavar="FILE SCALE", accumulates=True,
        n_words=2, help="the same, times SCALE", default="",
    ),
    completion(
        "--control-vector-layer-range", "text.control_vector_layers", v.layer_range, metavar="START END", n_words=2,
        help="layers that control vectors apply to, both included; 0 is the first or the last", default="all",
    ),
    switch(COMPLETION, "--mlock", "text.mlock", "lock the model in memory"),
    switch(COMPLETION, "--no-mmap", "text.mmap", "read the model instead of mapping its file", const=False),
    switch(
        COMPLETION, "--no-host", "text.no_host", env="LLAMA_ARG_NO_HOST",
        help="with a GPU: keep the CPU's weights in its own layouts, not where the GPU reaches them quickly",
    ),
    switch(
        COMPLETION, "--check-tensors", "text.check_tensors",
        help="look for invalid numbers in the file's weights while it loads, which takes longer",
    ),
    switch(
        COMPLETION, "--repack", "text.repack",
        help="lay the weights out as the CPU computes fastest with them (default)",
    ),
    switch(
        COMPLETION, "-nr --no-repack", "text.repack", const=False,
        help="leave the weights as they lie in the file",
    ),
    completion(
        "--numa", "text.numa", v.one_of(v.NUMA), metavar="distribute|isolate|numactl",
        help="place threads on a machine with several memory nodes",
    ),
    completion(
        "--chat-template", "hosted.chat_template", v.word, metavar="TEMPLATE", env="LLAMA_ARG_CHAT_TEMPLATE",
        help="Jinja template, or the name of a built-in one", default="the model's, else chatml",
    ),
    completion(
        "--chat-template-file", "hosted.chat_template", file_text, metavar="FILE",
        help="the same from a file", default="",
    ),
    completion(
        "-t --threads", "text.n_threads", v.integer(-1024, 1024), env="LLAMA_ARG_THREADS",
        help="threads of a decode; 0 or less: one for each physical core, within the CPU quota",
    ),
    completion(
        "-tb --threads-batch", "text.n_threads_batch", v.integer(-1024, 1024), default="as -t",
        help="threads of a prompt's evaluation; 0 or less: one for each processor",
    ),
    completion(
        "-c --ctx-size", "text.n_ctx", v.integer(0), env="LLAMA_ARG_CTX_SIZE",
        help="tokens of context over all slots; 0 takes what the model was trained for",
    ),
    switch(
        COMPLETION, "--context-shift", "text.context_shift",
        "drop the older half of a full context and go on (default)",
    ),
    switch(
        COMPLETION, "--no-context-shift", "text.context_shift", "end a text at the context's limit instead of shifting",
        const=False,
    ),
    completion(
        "-n --predict", "generation.n_predict", v.integer(-2), env="LLAMA_ARG_N_PREDICT", hidden="--n-predict",
        help="tokens to generate, also the most a request may ask for; -1 is no limit, -2 until the context is full",
    ),
    completion(
        "-b --batch-size", "text.n_batch", v.integer(1), "tokens of one batch", env="LLAMA_ARG_BATCH",
    ),
    completion(
        "-ub --ubatch-size", "text.n_ubatch", v.integer(1), env="LLAMA_ARG_UBATCH",
        help="tokens that are computed at once, at most a batch",
    ),
    completion("--keep", "generation.n_keep", v.integer(-1), "tokens kept at a context shift; -1 the whole prompt"),
    Option(
        group=COMPLETION, flags=("-fa", "--flash-attn"), dest="text.flash_attn", metavar="[on|off|auto]",
        parse=v.one_of(v.FLASH_ATTN), const="on", words=frozenset(v.FLASH_ATTN), env="LLAMA_ARG_FLASH_ATTN",
        parse_env=v.env_flash_attn, help="flash attention; without a value: on; auto: the quicker here",
    ),
    switch(COMPLETION, "-sp --special", "generation.special", "render special tokens in the text"),
)  # fmt: skip
