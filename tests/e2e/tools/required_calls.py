"""Required calls of random tools: `python -m tests.e2e.tools.required_calls [--answers 200] [--seed 0] [--streams 4]`.

The demo model is asked for so many answers under `tool_choice: "required"`, half of them greedy and half at temperature
1, every other one as a stream, in each form of calls in turn. Each call must name one of the tools, and its arguments
must be valid by jsonschema. An answer that its limit of tokens cut off counts apart: of its calls all but the last one
must be valid, and another is asked for in its place. Prints what went wrong with the request, and exits with 1 then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from llamabox.demo import ensure_demo_model
from tests.chat.templates import HERMES
from tests.e2e.server_process import ServerProcess

MAX_TOKENS = 400
MAX_CUT = 2
"""Answers that may be cut off for each that is whole: a small model counts without an end where it may."""

AROUND = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGS = (
    "\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
)
PYTHON = (
    "{% if loop.first %}[{% endif %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}="
    "{{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}){% if loop.last %}]{% else %}, {% endif %}"
)
TEMPLATES = {
    "generic": "",
    "json": HERMES,
    "tags": AROUND.replace("CALL", TAGS),
    "python": AROUND.replace("CALL", PYTHON),
}
"""The model's own template knows of no calls, so that its form is the generic one."""

USER = {"role": "user", "content": "What is the weather in Paris?"}


def random_schema(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of an argument. Texts and lists have an end; most numbers have."""
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "string", "maxLength": draw.randint(0, 12)},
        lambda: {"type": "string", "minLength": 2, "maxLength": draw.randint(3, 9)},
        lambda: {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
        lambda: {"type": "string", "format": draw.choice(["date", "time", "uuid", "ipv4"])},
        lambda: {"type": "integer"},
        lambda: {"type": "integer", "minimum": -5, "maximum": draw.randint(5, 2000)},
        lambda: {"type": "number", "minimum": 0, "maximum": draw.randint(1, 90)},
        lambda: {"type": "boolean"},
        lambda: {"type": "null"},
        lambda: {"enum": draw.sample(["a", "b c", 'say "x"', "ünï", 3, 4.5, None, True], draw.randint(1, 4))},
        lambda: {"const": draw.choice(["fixed", 7, False])},
        lambda: {"type": ["string", "null"], "maxLength": 6},
    ]
    if depth < 2:
        kinds += [
            lambda: {
                "type": "array",
                "items": random_schema(draw, depth + 1),
                "minItems": draw.randint(0, 1),
                "maxItems": draw.randint(1, 3),
            },
            lambda: random_object(draw, depth + 1),
            lambda: {"anyOf": [random_schema(draw, depth + 1), random_schema(draw, depth + 1)]},
        ]
    schema = draw.choice(kinds)()
    if draw.random() < 0.2:
        schema["description"] = "What it is."
    return schema


def random_object(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of an object whose properties are listed, some of them required."""
    names = draw.sample(["a", "city", "snake_case", "kebab-key", "Ünit", "two words", "x1", "items", "name"], 4)
    names = names[: draw.randint(0 if depth == 0 else 1, 4)]
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(draw, depth) for name in names},
        "additionalProperties": False,
    }
    if draw.random() < 0.8:
        found["required"] = draw.sample(names, draw.randint(0, len(names)))
    return found


def random_tools(draw: random.Random) -> list[dict[str, Any]]:
    """One to four tools."""
    names = draw.sample(["get_weather", "look-up", "t", "send_mail_to", "tool_9"], draw.randint(1, 4))
    made = []
    for name in names:
        parameters = random_object(draw)
        if draw.random() < 0.2 and parameters["properties"]:
            parameters["$defs"] = {"shared": random_schema(draw, 1)}
            parameters["properties"][next(iter(parameters["properties"]))] = {"$ref": "#/$defs/shared"}
        made.append({"type": "function", "function": {"name": name, "parameters": parameters}})
    return made


@dataclass
class Tally:
    """What came of the answers."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def calls_of(server: ServerProcess, asked: dict[str, Any], *, streams: bool) -> tuple[str, list[tuple[str, str]]]:
    """How an answer ended, and its calls: names and arguments."""
    if not streams:
        choice = server.ok("/v1/chat/completions", asked)["choices"][0]
        told = choice["message"].get("tool_calls") or ()
        return choice["finish_reason"], [(one["function"]["name"], one["function"]["arguments"]) for one in told]
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    reason = ""
    for chunk in server.stream("/v1/chat/completions", asked):
        for choice in chunk["choices"]:
            reason = choice["finish_reason"] or reason
            for one in choice["delta"].get("tool_calls") or ():
                index, told = one["index"], one["function"]
                names[index] = names.get(index, "") + (told.get("name") or "")
                arguments[index] = arguments.get(index, "") + (told.get("arguments") or "")
    return reason, [(names[index], arguments.get(index, "")) for index in sorted(names)]


def fault(reason: str, calls: list[tuple[str, str]], tools: list[dict[str, Any]]) -> str | None:
    """What is wrong with an answer, if anything is."""
    schemas = {one["function"]["name"]: one["function"]["parameters"] for one in tools}
    if reason not in ("tool_calls", "length"):
        return f"it ended with {reason!r}"
    if reason == "tool_calls" and not calls:
        return "it has no call"
    for name, arguments in calls if reason == "tool_calls" else calls[:-1]:
        if name not in schemas:
            return f"{name!r} is no tool"
        try:
            jsonschema.validate(json.loads(arguments), schemas[name])
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{name}: {arguments}: {str(error).splitlines()[0]}"
    return None


def ask(server: ServerProcess, form: str, seed: int, tally: Tally) -> bool:
    """Ask for one answer. False where it was cut off."""
    draw = random.Random(seed)
    tools = random_tools(draw)
    temperature = float(seed % 2)
    asked = {
        "messages": [USER],
        "tools": tools,
        "tool_choice": "required",
        "parallel_tool_calls": draw.random() < 0.3,
        "max_tokens": MAX_TOKENS,
        "temperature": temperature,
        "seed": seed,
    }
    streams = seed % 4 > 1
    try:
        reason, calls = calls_of(server, asked, streams=streams)
        wrong = fault(reason, calls, tools)
    except Exception as error:
        reason, wrong = "error", f"{type(error).__name__}: {error}"
    with tally.lock:
        if wrong is not None:
            tally.wrong.append(f"{form}, {'streamed' if streams else 'plain'}: {wrong}\n  {json.dumps(asked)}")
        tally.counts["cut" if reason == "length" else f"temperature {temperature:g}"] += 1
    return reason != "length"


def try_form(server: ServerProcess, form: str, n: int, seeds: Iterator[int], n_streams: int) -> Tally:
    """Ask for `n` whole answers of a form."""
    tally = Tally()

    def one(seed: int) -> None:
        """Cut answers are replaced by ones of the same kind."""
        for again in range(1 + MAX_CUT):
            if ask(server, form, seed + 1_000_000 * again, tally):
                return

    with ThreadPoolExecutor(n_streams) as pool:
        list(pool.map(one, itertools.islice(seeds, n)))
    return tally


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--forms", nargs="*", choices=sorted(TEMPLATES), default=sorted(TEMPLATES))
    asked = parser.parse_args(words)
    seeds = itertools.count(asked.seed)
    wrong: list[str] = []
    print("| form | greedy | temperature 1 | cut off, beside these | wrong |\n| --- | --- | --- | --- | --- |")
    for i, form in enumerate(asked.forms):
        n = asked.answers * (i + 1) // len(asked.forms) - asked.answers * i // len(asked.forms)
        arguments = ["-m", str(ensure_demo_model()), "-c", str(4096 * asked.streams), "-np", str(asked.streams)]
        if TEMPLATES[form]:
            arguments += ["--chat-template", TEMPLATES[form]]
        with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "log", *arguments) as server:
            tally = try_form(server, form, n, seeds, asked.streams)
        counts = tally.counts
        cells = (form, counts["temperature 0"], counts["temperature 1"], counts["cut"], len(tally.wrong))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        wrong += tally.wrong
    for one in wrong:
        print(one)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
