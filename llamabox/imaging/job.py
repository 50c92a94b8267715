"""Image jobs: plain values that cross the process boundary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pixels:
    """A picture, uncompressed: rows from the top, `width * height * channels` bytes."""

    width: int
    height: int
    channels: int  # 1 or 3
    data: bytes

    def __post_init__(self) -> None:
        n_bytes = self.width * self.height * self.channels
        if len(self.data) != n_bytes:
            raise ValueError(f"a picture of this size has {n_bytes} bytes, not {len(self.data)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob:
    """One request's pictures. None: what the server was started with, else the model's own."""

    request_id: str
    prompt: str
    negative_prompt: str = ""
    n: int = 1
    width: int = 512
    height: int = 512
    seed: int = 0  # image i has seed + i; the server draws a random base for -1
    sampler: str | None = None
    schedule: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    strength: float | None = None
    eta: float | None = None
    clip_skip: int | None = None
    slg_scale: float | None = None
    slg_start: float | None = None
    slg_end: float | None = None
    slg_layers: tuple[int, ...] = ()
    extra_steps: int = 0  # of quality hd
    init: Pixels | None = None
    mask: Pixels | None = None  # 1 channel
    control: Pixels | None = None
    control_strength: float | None = None
    control_canny: bool | None = None
    lora: tuple[tuple[int, float], ...] = ()  # ids and scales; adapters that are not named have none
    preview: str = "none"  # none, fast (a projection), full (decoded)
