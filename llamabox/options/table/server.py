"""Options of the door: where to listen, for whom, and which model is behind it."""

from __future__ import annotations

from llamabox.options import defaults
from llamabox.options.option import SERVER, switch, valued
from llamabox.options.values import common as v
from llamabox.options.values.devices import rpc_servers
from llamabox.options.values.files import api_keys_of_file, folder

SERVER_OPTIONS = (
    valued(
        SERVER, "--host", "listen.hosts", v.hosts, metavar="HOST", env="LLAMA_ARG_HOST",
        help="address or name to listen on; :: or * is every address; a comma list for several; a path ending in .sock "
        "is a unix socket",
    ),
    valued(
        SERVER, "--port", "listen.port", v.integer(1, 65535), "port to listen on", metavar="PORT", env="LLAMA_ARG_PORT",
    ),
    switch(
        SERVER, "--reuse-port", "listen.reuse_port", env="LLAMA_ARG_REUSE_PORT",
        help="let other processes listen on the port too, which then share its connections: for a change of servers",
    ),
    valued(SERVER, "-to --timeout", "listen.timeout", v.seconds, "seconds a client may be silent, or a body may take"),
    valued(
        SERVER, "--threads-http", "listen.n_threads_http", v.integer(-1, 1024), env="LLAMA_ARG_THREADS_HTTP",
        help="threads for work that blocks (chat templates); below 1: as many as suit the machine",
    ),
    valued(
        SERVER, "--conn-idle", "listen.conn_idle", v.integer(1, 32767),
        help="seconds of silence after which TCP asks for a sign of life; 4 such without an answer end a connection",
    ),
    valued(SERVER, "--conn-keepalive", "listen.keep_alive", v.seconds, "seconds that an idle connection is kept"),
    valued(
        SERVER, "--sse-ping-interval", "hosted.ping_interval", v.interval, env="LLAMA_ARG_SSE_PING_INTERVAL",
        help="seconds of silence after which a stream gets a comment, a sign of life; 0 or less: never",
    ),
    valued(
        SERVER, "--responses-store", "hosted.responses_store", v.mebibytes_or_none, metavar="MIB",
        default=defaults.mebibytes, env="LLAMABOX_RESPONSES_STORE",
        help="answers of /v1/responses that are kept for later requests, MiB; those unused for longest go first; 0: "
        "none",
    ),
    valued(
        SERVER, "--max-body", "listen.max_body", v.mebibytes, metavar="MIB", default=defaults.mebibytes,
        help="largest request body, MiB",
    ),
    valued(
        SERVER, "--max-bodies", "listen.max_bodies", v.mebibytes, metavar="MIB", default=defaults.mebibytes,
        help="all request bodies together, MiB; what goes beyond is a 503 that asks to come back",
    ),
    valued(
        SERVER, "--max-connections", "listen.max_connections", v.integer(1, 1_000_000), metavar="N",
        help="connections at a time, as far as the limit of open files allows; beyond, idle ones are closed first",
    ),
    valued(
        SERVER, "--ssl-key-file", "listen.ssl_key_file", v.word, metavar="FILE", env="LLAMA_ARG_SSL_KEY_FILE",
        help="private key for TLS, PEM; needs --ssl-cert-file", default="", protects=True,
    ),
    valued(
        SERVER, "--ssl-cert-file", "listen.ssl_cert_file", v.word, metavar="FILE", env="LLAMA_ARG_SSL_CERT_FILE",
        help="certificate for TLS with those that sign it, PEM; needs --ssl-key-file", default="", protects=True,
    ),
    valued(
        SERVER, "--api-prefix", "listen.api_prefix", v.api_prefix, metavar="PATH", env="LLAMA_ARG_API_PREFIX",
        help="what every route's path begins with, that of /health too",
    ),
    valued(
        SERVER, "--allowed-hosts", "listen.allowed_hosts", v.allowed_hosts, metavar="NAME,…", default="",
        help="names in Host to be called by; on loopback beside this machine's own, elsewhere instead of any; * any",
        protects=True,
    ),
    valued(
        SERVER, "--cors-origins", "listen.cors_origins", v.origins, metavar="ORIGIN,…", env="LLAMA_ARG_CORS_ORIGINS",
        help="web pages that may call, as https://page.example, others get a 403; localhost is this machine with any "
        "port; * is any page, without credentials",
        protects=True,
    ),
    valued(
        SERVER, "-m --model", "text.model", v.word, metavar="FILE", env="LLAMA_ARG_MODEL",
        help="GGUF file; of a split one the first part",
        default="a small demo model, fetched once, with template chatml",
    ),
    valued(
        SERVER, "-a --alias", "hosted.alias", v.word, metavar="NAME", env="LLAMA_ARG_MODEL_ALIAS",
        help="the model's name in the API; of a comma list the first in the alphabet", default="the file's name",
    ),
    valued(
        SERVER, "--lora", "text.lora", v.plain_file, metavar="FILE", accumulates=True, default="",
        help="load a LoRA adapter (GGUF) and apply it at scale 1; several times for several",
    ),
    valued(
        SERVER, "--lora-scaled", "text.lora", v.scaled_file, metavar="FILE SCALE", accumulates=True, n_words=2,
        help="the same at another scale", default="",
    ),
    switch(
        SERVER, "--lora-init-without-apply", "lora_init_without_apply",
        "load LoRA adapters at scale 0, until a request or POST /lora-adapters gives them another",
    ),
    valued(
        SERVER, "--rpc", "text.rpc_servers", rpc_servers, metavar="HOST:PORT,…", default="",
        help="spread the model over the devices of these RPC servers too, as over GPUs",
    ),
    valued(
        SERVER, "-s --seed", "sampling.seed", v.seed, default=defaults.seed, help="seed; -1 draws one for each request",
    ),
    switch(SERVER, "--slots", "hosted.enable_slots", "serve GET /slots", env="LLAMA_ARG_SLOTS"),
    switch(SERVER, "--no-slots", "hosted.enable_slots", "do not serve it (default)", const=False),
    switch(SERVER, "--metrics", "listen.enable_metrics", "serve GET /metrics", env="LLAMA_ARG_METRICS"),
    switch(
        SERVER, "--embeddings", "text.embeddings", hidden="--embedding", env="LLAMA_ARG_EMBEDDINGS",
        help="serve POST /v1/embeddings, beside texts where the model can generate",
    ),
    valued(
        SERVER, "--embd-normalize", "hosted.embd_normalize", v.integer(-1, 1000),
        help="how vectors are scaled where a request does not say: -1 not at all, 0 the largest number to 32760, "
        "1 taxicab, 2 Euclidean, more: that norm",
        default="2; -1 with --pooling none or rank",
    ),
    switch(
        SERVER, "--rerank", "text.rerank", hidden="--reranking",
        help="serve POST /v1/rerank and /v1/embeddings with a model made for ranking, and no texts; --pooling is rank",
    ),
    switch(SERVER, "--infill", "hosted.enable_infill", "serve POST /infill, for models that complete in the middle"),
    valued(
        SERVER, "--slot-save-path", "hosted.slot_save_path", folder, metavar="DIR", default="",
        help="with --slots: let clients save and restore slots as files in this folder",
    ),
    valued(
        SERVER, "--api-key", "listen.api_keys", v.api_keys, metavar="KEY", accumulates=True, env="LLAMA_API_KEY",
        help="ask clients for this key; a comma list or several times for several", default="", protects=True,
    ),
    valued(
        SERVER, "--api-key-file", "listen.api_keys", api_keys_of_file, metavar="FILE", accumulates=True,
        help="the same from a file, a key a line; blank lines and those that begin with # do not count", default="",
        protects=True,
    ),
)  # fmt: skip
