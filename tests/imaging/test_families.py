"""The family of a model by the names and shapes of its tensors, as the published files have them."""

from __future__ import annotations

import pytest

from llamabox.imaging.families import FAMILIES, Family, Shapes, family_of, is_standalone

DIT = "model.diffusion_model."
UNET: Shapes = {
    f"{DIT}input_blocks.0.0.weight": (3, 3, 4, 320),
    f"{DIT}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (768, 320),
}
INPAINT: Shapes = {f"{DIT}input_blocks.0.0.weight": (3, 3, 9, 320)}
WIDER: Shapes = {f"{DIT}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (1024, 320)}
SECOND: Shapes = {"conditioner.embedders.1.model.token_embedding.weight": (1280, 49408)}
FLUX: Shapes = {f"{DIT}double_blocks.0.img_attn.qkv.weight": (3072, 9216), f"{DIT}img_in.weight": (64, 3072)}


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (UNET, "sd1"),
        ({**UNET, **INPAINT}, "sd1-inpaint"),
        ({**UNET, **WIDER}, "sd2"),
        ({**UNET, **WIDER, **INPAINT}, "sd2-inpaint"),
        ({**UNET, **SECOND}, "sdxl"),
        ({**UNET, **SECOND, **INPAINT}, "sdxl-inpaint"),
        ({f"{DIT}joint_blocks.0.x_block.attn.qkv.weight": (1536, 4608)}, "sd3"),
        (FLUX, "flux"),
        ({**FLUX, f"{DIT}img_in.weight": (384, 3072)}, "flux-fill"),
        ({**FLUX, f"{DIT}double_blocks.0.img_mlp.gate_proj.weight": (3072, 12288)}, "ovis-image"),
        ({f"{DIT}transformer_blocks.0.img_mod.1.weight": (3072, 18432)}, "other"),
        ({"blk.0.attn_q.weight": (576, 576), "token_embd.weight": (576, 49152)}, None),
        ({}, None),
    ],
)
def test_the_family_is_in_the_names(tensors: Shapes, name: str | None) -> None:
    found = family_of(tensors)
    assert (found.name if found else None) == name


def test_a_file_with_the_diffusion_model_alone_is_known_by_its_bare_names() -> None:
    bare = {name.removeprefix(DIT): shape for name, shape in FLUX.items()}
    assert family_of(bare) == family_of(FLUX)
    assert is_standalone(bare)
    assert not is_standalone(FLUX)
    assert not is_standalone(UNET)


def test_the_table_is_that_of_the_document() -> None:
    table = {family.name: (family.sampler, family.steps, family.cfg_scale, family.size) for family in FAMILIES}
    assert table["sd1"] == table["sd2"] == ("euler_a", 20, 9.0, 512)
    assert table["sd1-inpaint"] == table["sd2-inpaint"] == ("euler_a", 50, 9.0, 512)
    assert table["sdxl"] == ("euler", 25, 5.0, 1024)
    assert table["sdxl-inpaint"] == ("euler", 50, 5.0, 1024)
    assert table["sd3"] == ("euler", 20, 4.5, 1024)
    assert table["flux"] == ("euler", 20, 1.0, 1024)
    assert table["flux-fill"] == ("euler", 50, 3.5, 1024)
    assert all(isinstance(family, Family) and family.size % family.multiple == 0 for family in FAMILIES)
