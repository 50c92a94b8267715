"""Families of diffusion models, known by their tensors' names, with the settings that draw their pictures best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]
"""The tensors of a file by name. Shapes are in ggml's order: the innermost dimension first."""

DIT = "model.diffusion_model."
"""How the names of the diffusion model's tensors begin in a file that has the text encoders too."""


@dataclass(frozen=True, slots=True)
class Family:
    """The defaults of a job (docs/api.md, Image fields). `sampler` None is the library's own choice."""

    name: str
    sampler: str | None
    steps: int
    cfg_scale: float
    size: int  # pixels of a side
    multiple: int = 16  # the sides of what is computed are multiples of it


SD1 = Family("sd1", "euler_a", 20, 9.0, 512, 64)
SD1_INPAINT = Family("sd1-inpaint", "euler_a", 50, 9.0, 512, 64)
SD2 = Family("sd2", "euler_a", 20, 9.0, 512, 64)
SD2_INPAINT = Family("sd2-inpaint", "euler_a", 50, 9.0, 512, 64)
SDXL = Family("sdxl", "euler", 25, 5.0, 1024, 64)
SDXL_INPAINT = Family("sdxl-inpaint", "euler", 50, 5.0, 1024, 64)
SD3 = Family("sd3", "euler", 20, 4.5, 1024)
FLUX = Family("flux", "euler", 20, 1.0, 1024)
FLUX_FILL = Family("flux-fill", "euler", 50, 3.5, 1024)
OVIS = Family("ovis-image", "euler", 20, 1.0, 1024)
OTHER = Family("other", None, 20, 7.0, 1024)
UNKNOWN = Family("unknown", None, 20, 7.0, 512, 64)
"""The family of a file whose tensors cannot be listed: a pickled checkpoint."""

FAMILIES = (SD1, SD1_INPAINT, SD2, SD2_INPAINT, SDXL, SDXL_INPAINT, SD3, FLUX, FLUX_FILL, OVIS, OTHER, UNKNOWN)

UNET = ("input_blocks.", "unet.down_blocks.")
SECOND_ENCODER = ("conditioner.embedders.1", "cond_stage_model.1", "te.1")
FIRST_LAYER = ("input_blocks.0.0.weight", "unet.conv_in.weight")
CROSS_ATTENTION = ".attn2.to_k.weight"
OTHERS = (
    "transformer_blocks.0.img_mod.1.weight",  # Qwen Image
    "llm_adapter.blocks.0.cross_attn.q_proj.weight",  # Anima
    "cap_embedder.0.weight",  # Z-Image
    "layers.0.adaLN_sa_ln.weight",  # ERNIE Image
    "nerf_final_layer_conv.",  # Chroma Radiance
)

STANDALONE = ("double_blocks.", "joint_blocks.", "input_blocks.", "transformer_blocks.", "cap_embedder.")
"""With one of these the file has the diffusion model only, under names of its own."""

INPAINT_CHANNELS = 9  # 4 of the latent, 4 of the picture to change, 1 of the mask
FLUX_FILL_CHANNELS = 384
SD2_CONTEXT, SD1_CONTEXT = 1024, 768


def family_of(tensors: Shapes) -> Family | None:
    """None: it is no diffusion model. The rules are libstable-diffusion's own (ModelLoader::get_sd_version)."""

    def has(*parts: str) -> bool:
        return any(part in name for name in tensors for part in parts)

    if has(*OTHERS):
        return OTHER
    if has("joint_blocks."):
        return SD3
    if has("double_blocks.0.img_mlp.gate_proj.weight"):
        return OVIS
    if has("double_stream_modulation_img.lin.weight"):
        return OTHER  # FLUX.2
    if has("double_blocks."):
        width = next((shape[0] for name, shape in tensors.items() if name.endswith("img_in.weight")), 0)
        return FLUX_FILL if width == FLUX_FILL_CHANNELS else FLUX
    if not has(*UNET):
        return None
    channels = next((shape[2] for name, shape in tensors.items() if name.endswith(FIRST_LAYER) and len(shape) == 4), 0)
    inpaint = channels == INPAINT_CHANNELS
    if has(*SECOND_ENCODER) or has("label_emb."):
        return SDXL_INPAINT if inpaint else SDXL
    context = next((shape[0] for name, shape in tensors.items() if name.endswith(CROSS_ATTENTION)), SD1_CONTEXT)
    if context == SD2_CONTEXT:
        return SD2_INPAINT if inpaint else SD2
    return SD1_INPAINT if inpaint else SD1


def is_standalone(tensors: Shapes) -> bool:
    """Whether the file has nothing but a diffusion model, whose names lack the prefix that tells it from the rest."""
    return any(name.startswith(STANDALONE) for name in tensors) and not any(name.startswith(DIT) for name in tensors)
