"""The real Claude Code mends a file: `python -m tests.e2e.agents.claude_code [--folder DIR]` (npm).

As tests/e2e/agents/codex.py: a grammar of the server's says what the model answers, and the exit status is 1 where the
file is not changed, the conversation is not whole, or a prompt does not begin with the last one. So that the prompts
fit into the context of the demo model, Claude Code is given a system prompt of its own, and two tools.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.agents.mending import AFTER, BEFORE, REPORT, Agent, Json, install, run
from tests.e2e.scripted_model import called

INSTRUCTIONS = "You are a coding agent. Read files with Read, and change them with Edit."
TOOLS = "Read,Edit"


def command(folder: Path, environment: dict[str, str], url: str) -> list[str]:
    """Claude Code's command; its settings are variables of the environment."""
    environment |= {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    claude = install(folder, "@anthropic-ai/claude-code", "claude")
    options = ["--output-format", "stream-json", "--verbose", "--system-prompt", INSTRUCTIONS, "--tools", TOOLS]
    return [claude, "--model", "local", *options, "--allowedTools", TOOLS, "-p"]


def faults(events: list[Json]) -> list[str]:
    """What is wrong in the transcript."""
    blocks = [
        block for event in events if event["type"] in ("assistant", "user") for block in event["message"]["content"]
    ]
    told = [block.get("name", block["type"]) for block in blocks]
    if told != ["Read", "tool_result", "Edit", "tool_result", "text"]:
        return [f"the conversation has {told}"]
    result = events[-1].get("result")
    return [] if result == REPORT else [f"the report is {result!r}"]


CLAUDE_CODE = Agent(
    route="/v1/messages",
    reading=lambda file: called("Read", {"file_path": str(file)}),
    changing=lambda file: called("Edit", {"file_path": str(file), "old_string": BEFORE, "new_string": AFTER}),
    command=command,
    faults=faults,
)

if __name__ == "__main__":
    sys.exit(run("claude_code", CLAUDE_CODE, sys.argv[1:]))
