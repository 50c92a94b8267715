"""The configuration of the port: where to listen, whom to let in, and what a connection may cost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """What holds for every request, whichever model serves it."""

    hosts: tuple[str, ...] = ("127.0.0.1",)  # addresses, or paths ending in .sock
    port: int = 8080
    reuse_port: bool = False  # others may listen on it too
    timeout: float = 600.0  # seconds a request may be silent, or its body take
    n_threads_http: int = -1  # for work that blocks; below 1: Python's own number
    conn_idle: int = 60  # seconds of silence after which TCP probes a connection
    keep_alive: float = 15.0  # seconds an idle connection is kept
    stall_timeout: float = 30.0  # seconds a client may leave its stream unread, or its body unsent; `timeout` caps it
    max_body: int = 64 << 20  # bytes
    max_bodies: int = 512 << 20  # bytes of all bodies together; at least those of one
    max_connections: int = 4096
    ssl_key_file: str | None = None  # PEM; both or neither
    ssl_cert_file: str | None = None
    api_prefix: str = ""  # of every route; begins with a slash unless empty, and does not end with one
    allowed_hosts: tuple[str, ...] = ()  # names in Host beside this machine's own; * any
    cors_origins: tuple[str, ...] = ("*",)  # pages that may call; * any, localhost this machine's
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    enable_metrics: bool = False
    shutdown_grace: float = 10.0  # seconds running requests get to end after SIGTERM
