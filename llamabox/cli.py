"""Parse, compose, run: the command and its exit status.

0   did what was asked, or was told to stop
1   a wrong option, a port that cannot be had, a model that cannot be loaded
2   the native libraries are missing or do not fit
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

import orjson

from llamabox.clients.text.rpc_servers import RpcServers
from llamabox.demo import ensure_demo_model
from llamabox.errors import (
    DOCTOR,
    LlamaboxError,
    NativeMismatch,
    NativeMissing,
    OptionsError,
    from_wire,
    hint,
)
from llamabox.imaging.config import ImageConfig
from llamabox.lending.config import RpcConfig
from llamabox.log import entries as log
from llamabox.log.output import ensure_descriptors, say, settle
from llamabox.options import OPTIONS
from llamabox.options.commandline import compose, compose_images, compose_rpc, echo, parse
from llamabox.options.named_files import check_file, named_files
from llamabox.options.usage import help_text
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.wire.text_config import TextConfig

if TYPE_CHECKING:
    from llamabox.server.hosted.model import Hosted

logger = logging.getLogger(__name__)

QUESTIONS = ("version", "system_info", "list_devices")
"""Options that a short-lived child answers, since this process loads no native code."""


HELP = frozenset(flag for option in OPTIONS if option.dest == "help" for flag in option.flags)
"""Flags that print the help, also beside wrong options."""


class Stopped(BaseException):
    """SIGTERM or SIGINT before the server took the signals over."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    ensure_descriptors()
    try:
        return _command(sys.argv[1:] if argv is None else list(argv))
    except Stopped:  # while the options were read: one may name a pipe, which is waited for
        return 0
    finally:
        settle()


def _command(argv: Sequence[str]) -> int:
    # As process 1 of a container the system's default would be to ignore these.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    if argv[:1] == ["bench"]:
        return _bench(argv[1:])
    if argv[:1] == ["doctor"]:
        return _doctor(argv[1:])
    if argv[:1] == ["health"]:
        return _health(argv[1:])
    if argv[:1] == ["lookup-build"]:
        return _lookup_build(argv[1:])
    try:
        parsed = parse(argv, os.environ)
    except OptionsError as error:
        if HELP.intersection(argv):
            return _help()
        if "--log-json" in argv:
            log.setup(0, as_json=True)
            logger.error("%s", error.message)
            return exit_status(error)
        return _fail(error, "see: python -m llamabox --help")
    if "help" in parsed.values:
        return _help()
    text, listen, hosted = compose(parsed)
    log.setup(text.verbosity, text.log_colors, as_json=text.log_json)
    for warning in parsed.warnings:
        if text.log_json:
            logger.warning("%s", warning)
        else:
            say(warning, sys.stderr)
    try:
        for question in QUESTIONS:
            if question in parsed.values:
                return _answer(question, text)
        if text.log_json:
            logger.info("%s", echo(argv))
        else:
            say(echo(argv), sys.stdout)  # a full disk or a closed pipe is no reason not to serve
        if (lending := compose_rpc(parsed, text)) is not None:
            if text.model:
                logger.warning("the model is not loaded: with --rpc-server-port only the RPC server runs")
            return _run_rpc(lending)
        images = compose_images(parsed, text, hosted)
        _check_template(hosted)
        if not text.model:
            text, hosted = with_demo_model(text, hosted)
        for what, path in named_files(text, images):
            check_file(what, path)
        return _run(text, listen, hosted) if images is None else _run_images(images, listen, hosted)
    except LlamaboxError as error:
        advice = hint(error)
        if text.log_json:
            logger.error("%s", error.message)
            if advice:
                logger.info("%s", advice)
            return exit_status(error)
        return _fail(error, advice)


def _help() -> int:
    return 0 if say(help_text().rstrip("\n"), sys.stdout) else 1


def _bench(argv: Sequence[str]) -> int:
    # Only here: a server does not load it.
    from llamabox.bench import command

    try:
        return command.main(argv)
    except Stopped:
        return 130


def _doctor(argv: Sequence[str]) -> int:
    from llamabox.doctor import command

    try:
        return command.main(argv)
    except Stopped:
        return 130


def _health(argv: Sequence[str]) -> int:
    from llamabox import health

    try:
        return health.main(argv)
    except Stopped:
        return 1


def _lookup_build(argv: Sequence[str]) -> int:
    from llamabox import lookup

    try:
        return lookup.main(argv)
    except Stopped:
        return 130


def exit_status(error: LlamaboxError) -> int:
    """The exit status for an error that ends the program."""
    return 2 if isinstance(error, NativeMissing | NativeMismatch) else 1


def _fail(error: LlamaboxError, advice: str = "") -> int:
    for handler in logging.getLogger().handlers:
        handler.flush()  # earlier lines are read first
    say(f"error: {error.message}", sys.stderr)
    if advice:
        say(advice, sys.stderr)
    return exit_status(error)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _answer(question: str, text: TextConfig) -> int:
    """Print the answer of a child with the native libraries, on stderr.

    Raises OptionsError for an unusable RPC server: the child's ggml would abort.
    """
    servers = text.rpc_servers if question == "list_devices" else ()
    if servers:
        asyncio.run(RpcServers(servers).check())
    command = [sys.executable, "-m", "llamabox.workers.inspect", question, text.native or "", *servers]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        say(f"error: the native libraries failed with status {run.returncode}\n{DOCTOR}", sys.stderr)
        return 2
    reply = orjson.loads(run.stdout)
    if "error" in reply:
        error = from_wire(reply)
        return _fail(error, hint(error))
    say(reply["text"], sys.stderr)
    return 0


def _check_template(hosted: ModelConfig) -> None:
    """A template that the user gave is compiled before anything is loaded. Raises OptionsError."""
    if hosted.chat_template is None:
        return
    from llamabox.chat.template import ChatTemplate, resolve_template  # else imported while the model loads

    template = ChatTemplate(resolve_template(hosted.chat_template, None), "", "")
    try:
        template.check()
    finally:
        template.close()


def with_demo_model(text: TextConfig, hosted: ModelConfig) -> tuple[TextConfig, ModelConfig]:
    """The demo model, fetched if need be, with the ChatML template unless the user gave one.

    Its own template adds a system prompt that leads so small a model astray: asked for the capital of France it
    answers with nonsense, in llama-server as well. Raises OptionsError where the model cannot be had.
    """
    text = replace(text, model=str(ensure_demo_model(progress=not text.log_json)))
    return text, replace(hosted, chat_template=hosted.chat_template or "chatml")


def _run(text: TextConfig, listen: ListenConfig, hosted: ModelConfig) -> int:
    """Serve until told to stop. Raises ListenError."""
    # Only here: --help and wrong options are answered without what serves.
    from llamabox.clients.text.client import TextClient
    from llamabox.server.start import run

    def importer() -> Callable[[TextClient], Hosted]:
        from llamabox.server.hosted.text import HostedText

        return lambda client: HostedText(hosted, client)

    return run(listen, lambda: TextClient(text, max_waiting=hosted.max_waiting), importer)


def _run_images(images: ImageConfig, listen: ListenConfig, hosted: ModelConfig) -> int:
    """Serve a model that draws until told to stop. Raises ListenError."""
    from llamabox.clients.image.client import ImageClient
    from llamabox.server.start import run

    def importer() -> Callable[[ImageClient], Hosted]:
        from llamabox.server.hosted.images import HostedImages

        return lambda client: HostedImages(hosted, client, images)

    return run(listen, lambda: ImageClient(images), importer)


def _run_rpc(config: RpcConfig) -> int:
    """Lend a device until told to stop. Raises ListenError, OptionsError, NativeError."""
    from llamabox.lending.listener import run

    return run(config)
