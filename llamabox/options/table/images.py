"""Options of a server that draws (`--images`)."""

from __future__ import annotations

from llamabox.options.option import SERVER, switch, valued
from llamabox.options.values import common as v

IMAGES = "server/images"

SAMPLERS = (
    *("euler_a", "euler", "heun", "dpm2", "dpm++2s_a", "dpm++2m", "dpm++2mv2", "ipndm", "ipndm_v", "lcm"),
    *("ddim_trailing", "tcd", "res_multistep", "res_2s", "er_sde"),
)
SCHEDULES = (
    *("default", "discrete", "karras", "exponential", "ays", "gits"),
    *("sgm_uniform", "simple", "smoothstep", "kl_optimal", "lcm", "bong_tangent"),
)
"""llama-box's names, then what libstable-diffusion has learnt since."""

FILES = {
    "clip_l_model": "CLIP-L text encoder",
    "clip_g_model": "CLIP-G text encoder",
    "t5xxl_model": "T5-XXL text encoder",
    "vae_model": "VAE",
    "taesd_model": "TAESD",
    "upscale_model": "upscaler",
    "control_net_model": "ControlNet",
}
"""The fields that name files, and what those are."""

IMAGE_OPTIONS = (
    switch(SERVER, "--images", "images", "serve POST /v1/images/* with a model that draws, and no texts"),
    valued(IMAGES, "--image-max-batch", "image.max_batch", v.integer(1, 64), "images that one request may ask for"),
    valued(IMAGES, "--image-max-height", "image.max_height", v.integer(256, 8192), "largest height, pixels"),
    valued(IMAGES, "--image-max-width", "image.max_width", v.integer(256, 8192), "largest width, pixels"),
    valued(IMAGES, "--image-guidance", "image.guidance", v.number(0), "distilled guidance, of FLUX and its like"),
    valued(
        IMAGES, "--image-strength", "image.strength", v.number(0, 1),
        "how much of a picture is drawn anew by an edit; 1 is all",
    ),
    valued(
        IMAGES, "--image-sampler", "image.sampler", v.one_of({name: name for name in SAMPLERS}), metavar="NAME",
        help=f"sampler: {', '.join(SAMPLERS)}", default="as suits the model",
    ),
    valued(
        IMAGES, "--image-sample-steps", "image.steps", v.integer(1, 500), default="as suits the model",
        help="steps of sampling; quality hd adds 10",
    ),
    valued(
        IMAGES, "--image-cfg-scale", "image.cfg_scale", v.number(1), default="as suits the model",
        help="how closely to follow the prompt; 1 is off, and takes half the time",
    ),
    valued(
        IMAGES, "--image-schedule", "image.schedule", v.one_of({name: name for name in SCHEDULES}), metavar="NAME",
        help=f"noise schedule: {', '.join(SCHEDULES)}", default="default",
    ),
    switch(
        IMAGES, "--image-no-text-encoder-model-offload", "image.keep_text_encoder_on_cpu",
        "keep the text encoders off the GPU",
    ),
    valued(IMAGES, "--image-clip-l-model", "image.clip_l_model", v.word, f"{FILES['clip_l_model']} of its own",
           metavar="FILE", default="in -m"),
    valued(IMAGES, "--image-clip-g-model", "image.clip_g_model", v.word, f"{FILES['clip_g_model']} of its own",
           metavar="FILE", default="in -m"),
    valued(IMAGES, "--image-t5xxl-model", "image.t5xxl_model", v.word, f"{FILES['t5xxl_model']} of its own",
           metavar="FILE", default="in -m"),
    switch(IMAGES, "--image-no-vae-model-offload", "image.keep_vae_on_cpu", "keep the VAE off the GPU"),
    valued(IMAGES, "--image-vae-model", "image.vae_model", v.word, "VAE of its own", metavar="FILE", default="in -m"),
    switch(IMAGES, "--image-vae-tiling", "image.vae_tiling", "decode pictures in tiles, with less memory"),
    valued(
        IMAGES, "--image-taesd-model", "image.taesd_model", v.word, metavar="FILE", default="",
        help="TAESD, a small and fast stand-in for the VAE",
    ),
    valued(
        IMAGES, "--image-upscale-model", "image.upscale_model", v.word, metavar="FILE", default="",
        help="ESRGAN model that enlarges what was drawn",
    ),
    valued(IMAGES, "--image-upscale-repeats", "image.upscale_repeats", v.integer(1, 4), "times that it does so"),
    switch(
        IMAGES, "--image-no-control-net-model-offload", "image.keep_control_net_on_cpu", "keep ControlNet off the GPU",
    ),
    valued(
        IMAGES, "--image-control-net-model", "image.control_net_model", v.word, metavar="FILE", default="",
        help="ControlNet, for edits with a control picture",
    ),
    valued(
        IMAGES, "--image-control-strength", "image.control_strength", v.number(0, 1), "how much ControlNet has to say",
    ),
    switch(IMAGES, "--image-control-canny", "image.control_canny", "give ControlNet the edges of its picture"),
)  # fmt: skip
