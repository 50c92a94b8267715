"""All that is looked at, in order."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import llamabox
from llamabox.chat.template import ChatTemplate
from llamabox.doctor import accelerators, libraries, limits, places, processor
from llamabox.doctor.child import ask
from llamabox.doctor.findings import Finding, ok, problem, warning
from llamabox.doctor.libraries import Libraries
from llamabox.doctor.system import System
from llamabox.errors import LlamaboxError, OptionsError
from llamabox.imaging.config import ImageConfig
from llamabox.lending.config import RpcConfig
from llamabox.options.commandline import compose, compose_images, compose_rpc, parse
from llamabox.options.named_files import named_files
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.tls import tls_context
from llamabox.wire.text_config import TextConfig


@dataclass(frozen=True, slots=True)
class Wanted:
    """The server that is to run. `lending` is set where it lends a device, and then it loads no model."""

    text: TextConfig
    listen: ListenConfig
    images: ImageConfig | None = None
    lending: RpcConfig | None = None

    @property
    def files(self) -> list[tuple[str, str]]:
        """The files that it loads: what each is, and its path."""
        if self.lending is not None:
            return []
        found = [(what, path) for what, path in named_files(self.text, self.images) if path]
        return found if self.text.mmproj is None else [*found, ("projector", self.text.mmproj)]


def examine(argv: Sequence[str], environ: Mapping[str, str], system: System) -> Iterator[Finding]:
    """`argv` and `environ` are those of a server, as it would be started."""
    python = platform.python_version()
    yield ok("program", f"llamabox {llamabox.__version__}, Python {python}, {platform.platform()}", python=python)
    wanted, found = read_options(argv, environ)
    yield from found
    files = wanted.files if wanted.images is None else []
    told = ask("text", wanted.text.native, places.readable(files))
    built = Libraries(told)
    yield from libraries.examine(built)
    if built.prefix:
        yield from libraries.examine_images(ask("images", wanted.text.native), wanted.images is not None)
    yield from processor.examine(system, built, wanted.text.n_threads)
    yield from accelerators.examine(system, built, wanted.text.devices, wanted.text.n_gpu_layers)
    yield from libraries.self_test(built)
    yield from limits.examine_memory(system, limits.n_weights(told.steps), bool(built.gpus), wanted.text.mlock)
    yield limits.examine_shared_memory(system)
    yield limits.examine_files(wanted.listen.max_connections)
    yield from limits.examine_threads(system)
    yield from places.examine_caches(environ, needs_demo=not wanted.text.model and wanted.lending is None)
    yield from places.examine_files(wanted.files, built)
    yield from _examine_port(wanted, system)
    yield _examine_templates()


def read_options(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Wanted, list[Finding]]:
    """The server that is wanted, and what is wrong with its options; then it is one without any."""
    try:
        parsed = parse(argv, environ)
        text, listen, hosted = compose(parsed)
        wanted = Wanted(text, listen, compose_images(parsed, text, hosted), compose_rpc(parsed, text))
    except OptionsError as error:
        advice = "python -m llamabox --help and docs/options.md have all options; the rest was looked at without any"
        return Wanted(TextConfig(model=""), ListenConfig()), [problem("options", error.message, advice)]
    advice = "leave it out, or see docs/options.md"
    return wanted, [warning("options", said, advice) for said in parsed.warnings]


def _examine_port(wanted: Wanted, system: System) -> Iterator[Finding]:
    listen, lending = wanted.listen, wanted.lending
    if lending is not None:
        yield from places.examine_address([lending.host], lending.port, system)
        return
    try:
        tls_context(listen)
    except OptionsError as error:
        yield problem("address", error.message, "give --ssl-key-file and --ssl-cert-file files that belong together")
    yield from places.examine_address(listen.hosts, listen.port, system, reuse_port=listen.reuse_port)


def _examine_templates() -> Finding:
    """Chat templates are rendered in a child that is shut off from the machine: whether one comes up."""
    template = ChatTemplate("{{ messages[0].content }}", "", "")
    try:
        template.check()
    except LlamaboxError as error:
        advice = "see what is said of memory and threads here"
        return problem("templates", f"a chat template cannot be rendered: {error.message}", advice)
    finally:
        template.close()
    return ok("templates", f"a chat template was rendered in a child of {sys.executable}")
