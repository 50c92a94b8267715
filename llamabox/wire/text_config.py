"""What a text worker is told to load, and what it tells of the model it loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

FileName = Annotated[str, "path"]
"""A path of any bytes, which need not be UTF-8."""

KvValue = int | float | bool | str
"""What a value of a model file's metadata can be overridden with."""

TensorBuffers = tuple[tuple[str, str], ...]
"""Regular expressions, each with ggml's name of a buffer type for tensors in whose names it is found.

The first that is found counts.
"""


SPEC_TYPES = ("text", "lookup", "model", "mtp")
"""Who may draft: matches in texts, counted n-grams, a draft model, the model's own heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """All that a text worker needs to load and run a model. Units and defaults are those of the options."""

    model: FileName
    n_ctx: int = 4096  # over all slots; 0: what the model was trained for
    n_parallel: int = 1
    n_batch: int = 2048
    n_ubatch: int = 512
    n_threads: int = -1
    n_threads_batch: int = -1
    cpu_mask: tuple[int, ...] = ()  # CPUs that decodes may run on; none: all
    cpu_strict: bool = False  # each thread on one CPU of them
    prio: int = 0  # -1 low, 0 usual, 1 to 3 real-time
    poll: int = 50  # 0 to 100: how long threads spin before they sleep
    cpu_mask_batch: tuple[int, ...] = ()  # these four for the evaluation of prompts
    cpu_strict_batch: bool = False
    prio_batch: int = 0
    poll_batch: int = 50
    n_gpu_layers: int = -1
    split_mode: str = "layer"  # none, layer, row
    tensor_split: tuple[float, ...] = ()  # shares of the GPUs; none: by their memory
    main_gpu: int = 0
    devices: tuple[str, ...] = ()  # what to compute on, by name: ("none",) the CPU alone; (): all there are
    rpc_servers: tuple[str, ...] = ()  # host:port of machines whose devices are used beside this one's
    kv_overrides: tuple[tuple[str, KvValue], ...] = ()
    tensor_buffers: TensorBuffers = ()
    lora: tuple[tuple[FileName, float], ...] = ()  # adapter files and the scales to begin with; the index is the id
    control_vectors: tuple[tuple[FileName, float], ...] = ()  # files and strengths
    control_vector_layers: tuple[int, int] = (0, 0)  # first and last; 0: the first or the last that there is
    mmproj: FileName | None = None  # the projector of pictures and sounds; None: the model takes text alone
    mmproj_offload: bool = True  # to a GPU, where there is one
    mmproj_threads: int = 0  # of the CPU, for the projector; 0: as many as for prompts
    image_min_tokens: int = -1  # of a picture whose tokens depend on its size; -1: as the projector says
    image_max_tokens: int = -1
    mmproj_cache: int = 256  # MiB of encoded pictures and sounds that are kept; 0: none
    mmap: bool = True
    no_host: bool = False  # the CPU's weights in its own layouts, instead of in memory that a GPU reaches quickly
    check_tensors: bool = False  # look for invalid numbers while the model loads
    mlock: bool = False
    repack: bool = True  # weights in the layouts that the CPU computes fastest with
    numa: str = "disabled"  # disabled, distribute, isolate, numactl
    flash_attn: str = "auto"  # on, off, auto
    kv_unified: bool = False
    n_ctx_slot: int = 0  # most tokens of a slot; 0: its part of them, or with kv_unified all
    offload_kqv: bool = True
    op_offload: bool = True  # prompts are a GPU's work also in layers whose weights the CPU has
    type_k: str = "f16"
    type_v: str = "f16"
    swa_full: bool = False
    rope_scaling: str = "unspecified"  # none, linear, yarn; unspecified: the model's, as are the zeros below
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_orig_ctx: int = 0
    yarn_ext_factor: float = -1.0  # negative: the model's, as with those below
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    context_shift: bool = True
    cont_batching: bool = True
    gap_factor: float = 2.0  # a gap of a running text beside prompts, in steps without; see engine Pacing
    cache_ram: int = 2048  # MiB of host memory for what slots have to give up; 0: none, -1: no limit
    ctx_checkpoints: int = 32  # checkpoints of one text, for memories that cannot be cut; 0: none
    checkpoint_min_step: int = 256  # tokens from a prompt's end to the first checkpoint far from it
    slot_similarity: float = 0.5  # the part of a free slot's cells that must be of use to take it over; 0: never
    warmup: bool = True
    embeddings: bool = False  # make vectors, and generate too where the model can
    rerank: bool = False  # make scores, and generate nothing; pooling is rank
    pooling: str = "unspecified"  # none, mean, cls, last, rank; unspecified: the model's
    spec: str = "auto"  # auto, off
    spec_types: tuple[str, ...] = SPEC_TYPES  # who may draft; all but the first where they are set up
    spec_n_max: int = 64  # most tokens of a draft
    spec_n_min: int = 0  # a draft of fewer tokens is not verified
    spec_p_min: float = 0.0  # a draft ends before a token that is less likely than this to be right
    spec_corpus: str = "key"  # whose finished texts help whom: off, key, all
    lookup_ngram_min: int = 0  # counted n-grams of so many to 4 tokens; 0: none are counted
    lookup_cache_static: FileName | None = None  # counts that are read alone
    lookup_cache_dynamic: FileName | None = None  # counts that are read, if they are there, and written
    model_draft: FileName | None = None  # a smaller model that drafts; these seven are as those of the model
    n_gpu_layers_draft: int = -1
    devices_draft: tuple[str, ...] = ()  # (): those of the model
    tensor_buffers_draft: TensorBuffers = ()
    type_k_draft: str = "f16"
    type_v_draft: str = "f16"
    n_threads_draft: int = -1  # 0 or less: as many as the model's
    n_threads_batch_draft: int = -1
    tokens_per_second: int = 0  # the most that a request may limit itself to; 0: no limits, -1: measured at start
    spm_infill: bool = False  # suffix, prefix, middle instead of prefix, suffix, middle
    verbosity: int = 0
    log_colors: bool = False
    log_json: bool = False
    grammar: str = ""  # that most requests follow: compiled at the start, and refused there if it is wrong
    json_schema: str = ""  # the same; at most one of the two
    hang_timeout: float = 60.0  # seconds without a sign of life after which the worker is killed; 0: never
    native: FileName | None = None  # the native prefix; None: the one inside the package


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What the model can take beside text."""

    has_vision: bool
    has_audio: bool
    audio_rate: int = 0  # samples a second that it hears; 0: it hears nothing
    max_image_side: int = 0  # pixels of width or height beyond which it sees no more; 0: no such bound
    max_image_pixels: int = 0  # the same for width * height


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftModelInfo:
    """The smaller model that drafts."""

    path: str
    ftype: str
    n_params: int
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the server process knows of the loaded model."""

    path: str
    n_ctx: int  # of one slot
    n_ctx_total: int
    n_slots: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_params: int
    size: int  # bytes
    vocab_type: int
    ftype: str
    description: str
    chat_template: str | None
    bos_token: str
    eos_token: str
    add_bos: bool
    context_shift: bool  # asked for and possible
    build: str  # "b<number>-<commit>"; the number is left out where it is not known
    longest_piece: int  # bytes: no prompt of n bytes has fewer than n / longest_piece tokens
    eog_tokens: list[int] = field(default_factory=list)
    lora: list[dict[str, str]] = field(default_factory=list)  # by id: path, task_name, prompt_prefix
    tokens_per_second: int = 0  # the cap of TextConfig, measured by now; 0: none
    generates: bool = True  # not an encoder, and not a reranker
    pooling: str = ""  # how vectors are made; none where it does not embed
    n_vector: int = 0  # floats of a vector; with pooling rank the classifier's outputs
    split: list[dict[str, Any]] = field(default_factory=list)  # by device: its name, server, n_layers, weights in bytes
    media: MediaInfo | None = None  # None: text alone
    embeds_media: bool = False  # whether it makes vectors of pictures and sound too
    drafters: list[str] = field(default_factory=list)  # who guesses, of SPEC_TYPES; none: no speculation here
    draft: DraftModelInfo | None = None  # None: no second model drafts
