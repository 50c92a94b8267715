"""The command: what to measure, the sweep, and its table."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from llamabox.bench.client import Target, get, target
from llamabox.bench.figures import Figures, figures, heading, row
from llamabox.bench.load import RequestShape, run
from llamabox.errors import LlamaboxError, OptionsError
from llamabox.log.output import say

MAX_CLIENTS = 1024


def main(argv: Sequence[str]) -> int:
    """Measure a running server. Returns the exit status: 1 where it cannot be measured or every request failed."""
    arguments = parser().parse_args(argv)
    try:
        runs = asyncio.run(_measure(arguments))
    except LlamaboxError as error:
        say(f"error: {error.message}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if any(each.failed < each.requests for each in runs) else 1


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    found = argparse.ArgumentParser(
        prog="llamabox bench",
        description="Measure an OpenAI-compatible server from the outside: for each number of clients its tokens per "
        "second, time to first token (TTFT), gaps between tokens, in milliseconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = found.add_argument
    add("--url", default="http://127.0.0.1:8080", help="the server, with its --api-prefix where it has one")
    add(
        "--api-key", default=argparse.SUPPRESS, help="key to send; also LLAMA_API_KEY", metavar="KEY"
    )  # --help shows defaults
    add("--insecure", action="store_true", help="accept any TLS certificate")
    add("--model", default="", help="model to ask for; the first that the server lists", metavar="NAME")
    add("--clients", type=_counts, default="1,2,4,8,16", help="clients at the same time, one run each", metavar="N,…")
    add("--requests", type=_positive, default=2, help="requests of each client in a run", metavar="N")
    add("--prompt-words", type=_positive, default=32, help="length of each prompt's own part", metavar="N")
    add("--shared-words", type=_whole, default=0, help="length of a beginning that a run's prompts share", metavar="N")
    add("--max-tokens", type=_positive, default=64, help="tokens to generate", metavar="N")
    add("--temperature", type=float, default=0.8, help="temperature", metavar="T")
    add("--chat", action="store_true", help="use /v1/chat/completions instead of /v1/completions")
    add("--timeout", type=float, default=600.0, help="seconds that a request may take", metavar="S")
    add("--json", default="", help="write the figures to this file as JSON, - for standard output", metavar="FILE")
    return found


async def _measure(arguments: argparse.Namespace) -> list[Figures]:
    server = target(
        arguments.url,
        api_key=getattr(arguments, "api_key", os.environ.get("LLAMA_API_KEY", "")),
        timeout=arguments.timeout,
        insecure=arguments.insecure,
    )
    shape = RequestShape(
        model=arguments.model or await _first_model(server),
        n_words=arguments.prompt_words,
        n_shared=arguments.shared_words,
        n_tokens=arguments.max_tokens,
        chat=arguments.chat,
        temperature=arguments.temperature,
    )
    salt = secrets.token_hex(4)  # no prompt has been seen before, by whatever cache
    table = sys.stderr if arguments.json == "-" else sys.stdout
    [warm], _ = await run(server, shape, f"{salt} warm", n_clients=1, n_requests=1)
    if warm.error:
        raise OptionsError(f"the first request failed: {warm.error}")
    say(heading(), table)
    runs = []
    for n_clients in arguments.clients:
        outcomes, seconds = await run(
            server, shape, f"{salt} {n_clients}", n_clients=n_clients, n_requests=n_clients * arguments.requests
        )
        runs.append(figures(n_clients, outcomes, seconds))
        say(row(runs[-1]), table)
        first = next((outcome.error for outcome in outcomes if outcome.error), "")
        if first:
            say(f"first failure: {first}", sys.stderr)
    if arguments.json:
        _write(arguments.json, {"url": arguments.url, "shape": asdict(shape), "runs": [_plain(each) for each in runs]})
    return runs


async def _first_model(server: Target) -> str:
    listed = await get(server, "/v1/models")
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise OptionsError("the server lists no model: name one with --model") from None


def _plain(run: Figures) -> dict[str, Any]:
    """JSON has no NaN: what was not measured is null."""
    return {name: None if math.isnan(value) else value for name, value in asdict(run).items()}


def _write(path: str, report: dict[str, Any]) -> None:
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2)
    if path == "-":
        if not say(text.decode(), sys.stdout):
            raise OptionsError("--json -: standard output cannot be written to")
        return
    try:
        Path(path).write_bytes(text + b"\n")
    except OSError as error:
        raise OptionsError(f"--json {path}: {error.strerror}") from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _counts(text: str) -> list[int]:
    counts = [_positive(part) for part in text.split(",")]
    if max(counts) > MAX_CLIENTS:
        raise argparse.ArgumentTypeError(f"{max(counts)} clients are too many: at most {MAX_CLIENTS}")
    return counts
