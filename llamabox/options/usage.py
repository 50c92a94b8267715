"""The options for people to read, made from the table: `--help` and docs/options.md.

`python -m llamabox.options.usage > docs/options.md` writes the document anew.
"""

from __future__ import annotations

from llamabox.chat.config import ChatConfig
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.imaging.config import ImageConfig
from llamabox.lending.config import RpcConfig
from llamabox.options import OPTIONS, Option
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.wire.text_config import TextConfig

MARGIN = 33
"""Column at which the texts of `--help` begin."""

DOCUMENT_HEAD = """\
# Options

A value follows its option as the next word or behind `=`. An unknown option is warned about, and the server starts all
the same, unless the name resembles one that protects the server (keys, TLS, who may call): then nothing is started. The
command line goes before the environment. `python -m llamabox --help` prints the options, too.

This page is made from the table in `llamabox/options/`: `python -m llamabox.options.usage > docs/options.md`.
"""


def help_text() -> str:
    """The whole of `--help`."""
    lines = [
        "usage: llamabox [options]",
        "       python -m llamabox [options]",
        "       llamabox bench [options]    measures a running server; bench --help tells how",
        "       llamabox doctor [options]   looks for what does not work here, and says what to do about it",
        "       llamabox health [options]   asks a running server how it is: with its options, or those of process 1",
        "       llamabox lookup-build …     makes a static lookup cache of texts; lookup-build --help tells how",
    ]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        lines += ["", f"{group}:", ""]
        for option in OPTIONS:
            if option.group == group:
                lines += _help_lines(option)
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole of docs/options.md: a Markdown table for each group of options."""
    lines = [DOCUMENT_HEAD]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        lines += [f"## {group}", "", "| option | meaning | default | environment |", "| --- | --- | --- | --- |"]
        lines += [_row(option) for option in OPTIONS if option.group == group]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags) + (f" `{option.metavar}`" if option.metavar else "")
    env = f"`{option.env}`" if option.env else ""
    cells = (flags, option.help, _default(option), env)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _help_lines(option: Option) -> list[str]:
    short = [flag for flag in option.flags if not flag.startswith("--")]
    long = [flag for flag in option.flags if flag.startswith("--")]
    start = f"  {short[0] + ',' if short and long else ''.join(short):<6} "
    head = (start + ", ".join(long) + (f" {option.metavar}" if option.metavar else "")).rstrip()
    text = option.help
    default = _default(option)
    notes = ([f"default: {default}"] if default else []) + ([f"env: {option.env}"] if option.env else [])
    if notes:
        text += f" ({'; '.join(notes)})"
    if len(head) >= MARGIN:
        return [head, " " * MARGIN + text]
    return [head.ljust(MARGIN) + text]


def _default(option: Option) -> str:
    """The default as text: that of the field behind the option unless the table words it."""
    if isinstance(option.default, str):
        return option.default
    owner, _, name = option.dest.partition(".")
    defaults = {
        "text": TextConfig(model=""),
        "listen": ListenConfig(),
        "hosted": ModelConfig(),
        "chat": ChatConfig(),
        "generation": GenerationParams(),
        "sampling": SamplingParams(),
        "image": ImageConfig(model=""),
        "rpc": RpcConfig(),
    }
    value = getattr(defaults[owner], name)
    if option.default is not None:
        return option.default(value)
    if isinstance(value, tuple):
        return (";" if name == "samplers" else ",").join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(document(), end="")
