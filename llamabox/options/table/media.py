"""Options of pictures and sounds in prompts."""

from __future__ import annotations

from llamabox.media.fetching.hosts import allowed_hosts
from llamabox.options.option import COMPLETION, completion, switch
from llamabox.options.values import common as v
from llamabox.options.values.files import folder

SMALLEST_SIDE = 224
"""Pixels. Below, no model sees what there is."""


def largest_side(text: str) -> int:
    """Pixels, or 0 for no bound of one's own."""
    side = v.integer(0, 1 << 16)(text)
    if 0 < side < SMALLEST_SIDE:
        raise ValueError(f"expected 0, or {SMALLEST_SIDE} and more")
    return side


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
        "--mmproj-threads", "text.mmproj_threads", v.integer(0, 1024), env="LLAMABOX_MMPROJ_THREADS", default="as -tb",
        help="threads that encode images and sounds on a CPU, beside those that decode; 0: as -tb",
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
        "--media-marker", "hosted.media_marker", v.word, metavar="TEXT", env="LLAMA_MEDIA_MARKER", default="random",
        help="text that stands in a prompt_string for each entry of multimodal_data; clients find it in GET /props",
    ),
    completion(
        "--mmproj-cache", "text.mmproj_cache", v.integer(0, 1 << 20), env="LLAMABOX_MMPROJ_CACHE", metavar="MIB",
        help="memory for encoded images and sounds, MiB: one that comes again is not encoded again; 0 is none",
    ),
    completion(
        "--visual-max-image-size", "hosted.visual_max_image_size", largest_side,
        help="make images smaller whose longer side has more pixels; 0 leaves it to the model",
    ),
    completion(
        "--media-path", "hosted.media_path", folder, metavar="DIR", default="",
        help="let requests name images and sounds in this folder as file://NAME",
    ),
    completion(
        "--media-url", "hosted.media_hosts", allowed_hosts, metavar="HOST,…", default="",
        help="let requests name images and sounds by http and https on these hosts, or on any; HOST:PORT for one port "
        "alone; addresses inside the network only where they are named themselves",
    ),
)  # fmt: skip
