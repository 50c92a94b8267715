"""LoRA scales in JSON: an array of {"id", "scale"}, as the field `lora` and as the body of POST /lora-adapters."""

from __future__ import annotations

from typing import Any

from llamabox import checks
from llamabox.checks import describe, wrong
from llamabox.engine.request import LoraSet, lora_set

LARGEST_SCALE = 100.0
"""The largest scale that a client may ask for: far beyond sense, and far below what makes infinities of cells."""


def parse_lora(field: str, value: Any, n_adapters: int) -> LoraSet:
    """The set that these scales make; adapters that are not named have scale 0. InvalidRequest names what is wrong."""
    if not isinstance(value, list):
        raise wrong(field, f'must be an array of {{"id": 0, "scale": 1}}, not {describe(value)}')
    scales: dict[int, float] = {}
    for i, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise wrong(f"{field}[{i}]", f'must be as {{"id": 0, "scale": 1}}, not {describe(entry)}')
        adapter_id = _adapter_id(f"{field}[{i}].id", entry.get("id"), n_adapters)
        if adapter_id in scales:
            raise wrong(f"{field}[{i}].id", f"adapter {adapter_id} is named twice")
        scales[adapter_id] = checks.number(f"{field}[{i}].scale", entry.get("scale"), -LARGEST_SCALE, LARGEST_SCALE)
    return lora_set(scales)


def lora_object(chosen: LoraSet) -> list[dict[str, Any]]:
    """The set as JSON has it."""
    return [{"id": adapter_id, "scale": scale} for adapter_id, scale in chosen]


def _adapter_id(field: str, value: Any, n_adapters: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n_adapters:
        known = f"it is from 0 to {n_adapters - 1}" if n_adapters else "this server was started without --lora"
        raise wrong(field, f"invalid adapter id {describe(value)}: {known}")
    return value
