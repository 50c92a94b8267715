"""The configuration of a model behind the port, whichever kind of worker has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from llamabox.chat.config import ChatConfig
from llamabox.clients.crowd import MAX_WAITING
from llamabox.engine.request import GenerationParams
from llamabox.media.fetching.hosts import AllowedHosts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What requests to the model are called by, may ask for, and get where they say nothing."""

    alias: str = "unknown"  # or several, separated by commas; while it is "unknown" the file's name stands for it
    chat_template: str | None = None  # text or built-in name; None: the model's own
    chat: ChatConfig = field(default_factory=ChatConfig)
    n_predict: int = -1  # caps every request's n_predict when above 0; -2 stands in for their -1
    defaults: GenerationParams = field(default_factory=GenerationParams)  # of requests, at the start
    spec_corpus: str = "key"  # whose finished texts help to guess whose: off, key, all
    given: frozenset[str] = frozenset()  # names of the sampling options the user set
    ping_interval: float = 30.0  # seconds of silence after which a stream gets a comment line
    responses_store: int = 64 << 20  # bytes of responses that are kept for later requests; 0: none are
    max_waiting: int = MAX_WAITING  # texts that may wait for a slot
    media_path: str | None = None  # an existing folder, whose files requests may name
    media_hosts: AllowedHosts = field(default_factory=AllowedHosts)  # from which pictures and sound may be fetched
    media_marker: str = ""  # stands for an entry of multimodal_data in a prompt_string; empty: a random one
    visual_max_image_size: int = 0  # pixels of a picture's longer side, more are not used; 0: as the model can use
    enable_slots: bool = False
    slot_save_path: str | None = None  # an existing folder
    enable_infill: bool = False
    enable_embeddings: bool = False
    enable_rerank: bool = False
    embd_normalize: int | None = None  # of vectors; None: 2, or -1 where they are of tokens or are scores
