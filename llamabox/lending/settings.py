"""The settings that the RPC server gives to the lenders that it starts, and the bytes that they send back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from llamabox.lending.config import RpcConfig

READY = b"\n"
"""A lender sends it once it can take a client. Anything else is an error as JSON, see `errors.to_wire`."""


BEAT = b"."
"""A lender sends it again and again while it has a client: its sign of life."""


@dataclass(frozen=True, slots=True)
class LenderSettings:
    """The part of `RpcConfig` that lenders act on."""

    main_gpu: int
    reserve: int
    n_threads: int
    cache: str | None
    cache_size: int
    hang_timeout: float
    native: str | None

    @classmethod
    def of(cls, config: RpcConfig) -> LenderSettings:
        return cls(
            main_gpu=config.main_gpu,
            reserve=config.reserve,
            n_threads=config.n_threads,
            cache=config.cache,
            cache_size=config.cache_size,
            hang_timeout=config.hang_timeout,
            native=config.native,
        )

    @classmethod
    def of_text(cls, text: str) -> LenderSettings:
        """The inverse of `text`."""
        return cls(**json.loads(text))

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))
