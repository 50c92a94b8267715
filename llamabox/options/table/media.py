"""Options of pictures and sounds in prompts."""

from __future__ import annotations

from llamabox.options import values as v
from llamabox.options.option import COMPLETION, completion, switch

MEDIA_OPTIONS = (
    completion(
        "-mm --mmproj", "text.mmproj", v.word, metavar="FILE", env="LLAMA_ARG_MMPROJ", default="text alone",
        help="GGUF file of the model's multimodal projector: with it prompts may hold images, sound, or both",
    ),
    switch(
        COMPLETION, "--mmproj-offload", "text.mmproj_offload", "compute the projector on a GPU (default)",
        env="LLAMA_ARG_MMPROJ_OFFLOAD",
    ),
    switch(
        COMPLETION, "--no-mmproj-offload", "text.mmproj_offload", "leave the projector to the CPU", const=False,
    ),
    completion(
        "--image-min-tokens", "text.image_min_tokens", v.integer(1, v.MAX_IMAGE_TOKENS), default="the projector's",
        env="LLAMA_ARG_IMAGE_MIN_TOKENS", help="tokens of an image at the least, where they depend on its size",
    ),
    completion(
        "--image-max-tokens", "text.image_max_tokens", v.integer(1, v.MAX_IMAGE_TOKENS), default="the projector's",
        env="LLAMA_ARG_IMAGE_MAX_TOKENS", help="tokens of an image at the most, where they depend on its size",
    ),
    completion(
        "--media-marker", "server.media_marker", v.word, metavar="TEXT", env="LLAMA_MEDIA_MARKER", default="random",
        help="text that stands in a prompt_string for each entry of multimodal_data; clients find it in GET /props",
    ),
    completion(
        "--mmproj-cache", "text.mmproj_cache", v.integer(0, 1 << 20), env="LLAMABOX_MMPROJ_CACHE", metavar="MIB",
        help="memory for encoded images and sounds, MiB: one that comes again is not encoded again; 0 is none",
    ),
)  # fmt: skip
