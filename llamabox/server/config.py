"""The configuration of the HTTP side."""

from __future__ import annotations

from dataclasses import dataclass, field

from llamabox.clients.crowd import MAX_WAITING
from llamabox.engine.request import GenerationParams
from llamabox.media.fetching.hosts import AllowedHosts


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where to listen, whom to let in, and the defaults of requests."""

    hosts: tuple[str, ...] = ("127.0.0.1",)  # addresses, or paths ending in .sock
    port: int = 8080
    timeout: float = 600.0  # seconds a request may be silent, or its body take
    n_threads_http: int = -1  # for work that blocks; below 1: Python's own number
    conn_idle: int = 60  # seconds of silence after which TCP probes a connection
    keep_alive: float = 15.0  # seconds an idle connection is kept
    stall_timeout: float = 30.0  # seconds a client may leave its stream unread, or its body unsent; `timeout` caps it
    ping_interval: float = 30.0  # seconds of silence after which a stream gets a comment line
    max_body: int = 64 << 20  # bytes
    max_waiting: int = MAX_WAITING  # texts that may wait for a slot
    max_bodies: int = 512 << 20  # bytes of all bodies together; at least those of one
    max_connections: int = 4096
    media_path: str | None = None  # an existing folder, whose files requests may name
    media_hosts: AllowedHosts = field(default_factory=AllowedHosts)  # from which pictures and sound may be fetched
    visual_max_image_size: int = 0  # pixels of a picture's longer side, more are not used; 0: as the model can use
    ssl_key_file: str | None = None  # PEM; both or neither
    ssl_cert_file: str | None = None
    api_prefix: str = ""  # of every route; begins with a slash unless empty, and does not end with one
    allowed_hosts: tuple[str, ...] = ()  # names in Host beside this machine's own; * any
    cors_origins: tuple[str, ...] = ("*",)  # pages that may call; * any, localhost this machine's
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    alias: str = "unknown"  # or several, separated by commas; while it is "unknown" the file's name stands for it
    media_marker: str = ""  # stands for an entry of multimodal_data in a prompt_string; empty: a random one
    chat_template: str | None = None  # text or built-in name; None: the model's own
    n_predict: int = -1  # caps every request's n_predict when above 0; -2 stands in for their -1
    defaults: GenerationParams = field(default_factory=GenerationParams)  # of requests, at the start
    spec_corpus: str = "key"  # whose finished texts help to guess whose: off, key, all
    given: frozenset[str] = frozenset()  # names of the sampling options the user set
    enable_slots: bool = False
    slot_save_path: str | None = None  # an existing folder
    enable_metrics: bool = False
    enable_infill: bool = False
    enable_embeddings: bool = False
    enable_rerank: bool = False
    shutdown_grace: float = 10.0  # seconds running requests get to end after SIGTERM
