"""Names a file that was given for a language model and is something else, and the option that takes it."""

from __future__ import annotations

import re

from llamabox.bindings.files.header import Header

DRAWING = frozenset(
    {"aura", "cosmos", "flux", "hidream", "hyvid", "ltxv", "lumina2", "ovis", "qwen_image", "sd1", "sd3", "sdxl", "wan"}
)
"""Architectures that converters of image and video models write."""

DRAWING_TENSORS = (
    *("model.diffusion_model.", "first_stage_model.", "double_blocks.", "joint_blocks.", "input_blocks."),
    *("unet.", "transformer_blocks.", "cond_stage_model.", "conditioner."),
)

HEAD = re.compile(r"blk\.\d+\.nextn\.eh_proj\.weight")
"""The tensor that makes a layer a head of multi-token prediction."""

STARTS = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself by `git lfs pull`",
    b"<!doctype html": "a web page, perhaps an error of the download",
    b"<html": "a web page, perhaps an error of the download",
    b"ggjt": "an old ggml model: convert it, or fetch it as GGUF",
    b"lmgg": "an old ggml model: convert it, or fetch it as GGUF",
    b"tjgg": "an old ggml model: convert it, or fetch it as GGUF",
    b"PK\x03\x04": "a zip archive, as PyTorch's checkpoints are: with --images one that draws is taken",
}


def instead_of_model(header: Header) -> str | None:
    """What a GGUF file is instead of a model for texts, and what to do with it; None where it may be such a model."""
    kind, architecture = header.text("general.type"), header.text("general.architecture")
    if kind == "adapter":
        return f"it is a LoRA adapter for a {architecture} model: name that model with -m and this file with --lora"
    if architecture == "controlvector":
        return "it is a control vector: name a model with -m and this file with --control-vector"
    if kind == "mmproj" or architecture == "clip":
        return "it is a multimodal projector (mmproj): name it with -mm, and the model's own file with -m"
    if kind == "imatrix" or architecture == "imatrix":
        return "it is an importance matrix, which is for quantising models: name the model's own file with -m"
    if architecture in DRAWING or (architecture is None and any(n.startswith(DRAWING_TENSORS) for n in header.tensors)):
        return "it is a model that draws: start the server with --images"
    if any(HEAD.fullmatch(name) for name in header.tensors) and not _has_first_layer(header):
        return "it has the heads of multi-token prediction alone: name a file with -m that has the whole model as well"
    return None


def _has_first_layer(header: Header) -> bool:
    """Whether the file has tensors of the first layer; so may those behind the first part of a split one."""
    return (header.number("split.count") or 1) > 1 or any(name.startswith("blk.0.") for name in header.tensors)


def instead_of_projector(header: Header) -> str | None:
    """What a GGUF file is instead of a multimodal projector, and what to do with it; None where it is one."""
    kind, architecture = header.text("general.type"), header.text("general.architecture")
    if kind == "mmproj" or architecture == "clip":
        return None
    if (what := instead_of_model(header)) is not None:
        return what
    if architecture is None:
        return "it is no multimodal projector (mmproj): it does not name its architecture (general.architecture)"
    return f"it is a {architecture} model, no multimodal projector (mmproj): name it with -m"


def known_start(start: bytes) -> str | None:
    """What a file is instead of a model, by its first 32 bytes; None where they do not tell."""
    return next((what for beginning, what in STARTS.items() if start.lower().startswith(beginning.lower())), None)


def instead_of_gguf(start: bytes) -> str:
    """What a file is that does not begin like a GGUF file, by its first 32 bytes."""
    if (what := known_start(start)) is not None:
        return f"it is not a GGUF file but {what}"
    if start[8:9] == b"{" and start[4:8] == bytes(4):
        return (
            "it is not a GGUF file but a safetensors file: language models are taken as GGUF, and models that draw "
            "with --images"
        )
    return "it is not a GGUF file (the first four bytes are not GGUF)"
