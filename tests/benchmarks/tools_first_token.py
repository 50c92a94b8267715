"""What tools cost before the first token: `python -m tests.benchmarks.tools_first_token [--rounds 7] [--shown names]`.

Prints a Markdown table of the seconds that an answer of one token takes: a chat that may call tools, and one with the
very same prompt that may not, since its template is given the tools as a variable. Both are asked of one server in
turn; medians over the rounds.

* `cold`: tools that were never seen, so that their grammar is written, tried out and compiled, and nothing of the
  prompt is there.
* `warm`: the same tools with another question, as in the next turn of a conversation.

The templates show the tools' names alone, or their schemas: without these the prompt is short, and what the grammar
costs weighs most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llamabox.demo import ensure_demo_model
from tests.e2e.server_process import ServerProcess

TURNS = (
    "{% for t in tools or shown or [] %}{{ SHOWN }} {% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = {
    "json": '\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>",
    "tags": "\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
}
SHOWN = {"names": "t.function.name", "schemas": "t | tojson"}


def tools(n: int, seed: int) -> list[dict[str, Any]]:
    """`n` tools with 8 properties each."""
    made = []
    for i in range(n):
        kinds = ("string", "integer", "boolean")
        properties: dict[str, Any] = {f"p{seed}_{i}_{j}": {"type": kinds[j % 3]} for j in range(6)}
        required = list(properties)[:2]
        properties["mode"] = {"enum": ["a", "b", "c"]}
        line = {"type": "object", "properties": {"line": {"type": "integer"}}}
        properties["items"] = {"type": "array", "items": line}
        parameters = {"type": "object", "properties": properties, "required": required}
        made.append({"type": "function", "function": {"name": f"tool_{seed}_{i}", "parameters": parameters}})
    return made


def seconds(server: ServerProcess, path: str, body: dict[str, Any]) -> float:
    begun = time.perf_counter()
    server.ok(path, body)
    return time.perf_counter() - begun


def compare(server: ServerProcess, n: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """For cold and warm: the medians with tools and without, and that of the rounds' ratios."""
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for i in range(rounds):
        for state in found:
            times = []
            for which in (0, 1) if i % 2 else (1, 0):
                given = tools(n, 2 * i + which)
                body = {"messages": [{"role": "user", "content": f"Hello {state}."}], "max_tokens": 1, "temperature": 0}
                kind = {"tools": given} if which else {"chat_template_kwargs": {"shown": given}}
                times.append((which, seconds(server, "/v1/chat/completions", {**body, **kind})))
            by = dict(times)
            found[state].append((by[1], by[0]))
    return {
        state: (
            statistics.median(one for one, _ in pairs),
            statistics.median(other for _, other in pairs),
            statistics.median(one / other for one, other in pairs),
        )
        for state, pairs in found.items()
    }


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shown", choices=sorted(SHOWN), nargs="*", default=sorted(SHOWN))
    asked = parser.parse_args(words)
    model = asked.model or ensure_demo_model()
    print("| form | prompt has | tools | | with tools | plain | ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for form, call in CALLS.items():
            for shown in asked.shown:
                template = TURNS.replace("SHOWN", SHOWN[shown]).replace("CALL", call)
                log = Path(folder) / f"{form}-{shown}.log"
                arguments = ("-m", str(model), "-c", "32768", "-np", "4", "--chat-template", template)
                with ServerProcess(log, *arguments) as server:
                    for n in (40, 120) if shown == "names" else (40,):
                        for state, (with_tools, plain, ratio) in compare(server, n, asked.rounds).items():
                            cells = (form, shown, n, state, f"{with_tools:.3f} s", f"{plain:.3f} s", f"{ratio:.2f}")
                            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
