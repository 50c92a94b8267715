"""Every command-line option, in one table. Parsing, `--help` and docs/options.md come from it.

An option's default is not here: it is that of the configuration field the option writes to, named by `dest`:

    text.X        wire.text_config.TextConfig
    listen.X      server.listening.config.ListenConfig
    hosted.X      server.hosted.config.ModelConfig
    chat.X        chat.config.ChatConfig
    generation.X  engine.request.GenerationParams
    sampling.X    engine.request.SamplingParams
    image.X       imaging.config.ImageConfig
    rpc.X         lending.config.RpcConfig
    X             no field: commandline.py or cli.py acts on it
"""

from __future__ import annotations

from llamabox.options.option import COMPLETION, GENERAL, SERVER, Option
from llamabox.options.table.general import GENERAL_OPTIONS
from llamabox.options.table.images import IMAGE_OPTIONS
from llamabox.options.table.loading import LOADING_OPTIONS
from llamabox.options.table.media import MEDIA_OPTIONS
from llamabox.options.table.memory import MEMORY_OPTIONS
from llamabox.options.table.rpc import RPC_SERVER_OPTIONS
from llamabox.options.table.running import CHAT_OPTIONS, RUNNING_OPTIONS
from llamabox.options.table.sampling import SAMPLING_OPTIONS
from llamabox.options.table.server import SERVER_OPTIONS
from llamabox.options.table.speculation import SPECULATION_OPTIONS
from llamabox.options.table.threads import THREAD_OPTIONS

__all__ = ["COMPLETION", "GENERAL", "OPTIONS", "SERVER", "Option"]

OPTIONS: tuple[Option, ...] = (
    GENERAL_OPTIONS
    + SERVER_OPTIONS
    + LOADING_OPTIONS
    + CHAT_OPTIONS
    + MEDIA_OPTIONS
    + THREAD_OPTIONS
    + SAMPLING_OPTIONS
    + RUNNING_OPTIONS
    + SPECULATION_OPTIONS
    + MEMORY_OPTIONS
    + IMAGE_OPTIONS
    + RPC_SERVER_OPTIONS
)
"""All options, in the order of `--help`."""
