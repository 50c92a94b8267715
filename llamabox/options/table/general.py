"""Options of every mode."""

from __future__ import annotations

from llamabox.options.option import GENERAL, Option, switch, valued
from llamabox.options.values import common as v

GENERAL_OPTIONS = (
    switch(GENERAL, "-h --help --usage", "help", "print this text and exit"),
    switch(GENERAL, "--version", "version", "print the versions and the build, and exit"),
    switch(GENERAL, "--system-info", "system_info", "print what the native library says of this machine, and exit"),
    switch(GENERAL, "--list-devices", "list_devices", "print the devices that can compute, and exit"),
    switch(GENERAL, "-v --verbose --log-verbose", "text.verbosity", "log everything, prompts included", const=99),
    valued(
        GENERAL, "-lv --verbosity --log-verbosity", "text.verbosity", v.integer(-1, 99), metavar="V",
        help="how much to log: 0 the usual and each request, 1 health checks as well, 2 everything, prompts included",
        env="LLAMA_LOG_VERBOSITY",
    ),
    Option(
        group=GENERAL, flags=("--log-colors",), dest="text.log_colors", metavar="[on|off]", parse=v.one_of(v.SWITCH),
        words=frozenset(v.SWITCH), default="", help="colour the log",
    ),
    switch(GENERAL, "--log-json", "text.log_json", "log JSON, an object a line, never coloured", hidden="--log-jsonl"),
    valued(
        GENERAL, "--hang-timeout", "text.hang_timeout", v.number(0, 10**6), env="LLAMABOX_HANG_TIMEOUT", metavar="S",
        help="seconds without a sign of life after which a worker process is killed and another started; 0 is never",
    ),
    valued(
        GENERAL, "--native", "text.native", v.word, metavar="DIR", env="LLAMABOX_NATIVE",
        help="use the native libraries that build_native.py put there", default="those inside the package",
    ),
)  # fmt: skip
