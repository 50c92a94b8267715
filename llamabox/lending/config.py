"""The settings of the RPC server."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.lending.allow import PRIVATE, Networks


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Defaults are those of the command line; `port` 0 is: there is no RPC server."""

    host: str = "0.0.0.0"
    port: int = 0
    main_gpu: int = 0  # -1: the CPU
    reserve: int = 0  # bytes that clients are not told of
    n_threads: int = 0  # at least 1 once composed; only the CPU computes with them
    cache: str | None = None  # a folder
    cache_size: int = 16 << 30  # bytes that its files may take together
    allow: Networks = PRIVATE
    hang_timeout: float = 60.0  # seconds without a sign of life after which a client's process is killed; 0: never
    native: str | None = None
