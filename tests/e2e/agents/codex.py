"""The real Codex CLI mends a file: `python -m tests.e2e.agents.codex [--folder DIR]` (npm).

Installs Codex into a temporary folder, or into DIR, which a second run finds again, and starts a server with the demo
model. A grammar of the server's says what the model answers: it reads the file, patches it and reports. Prints what
was computed of each prompt; the exit status is 1 where the file is not changed, the conversation is not whole, or a
prompt does not begin with the last one.

The demo model has 8,192 tokens of context. Codex's own instructions and tools for a model that it does not know take
more, so that it is told of the model in its own words: a catalogue with one entry, short instructions, and no tools
beyond commands and patches (`settings`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.agents.mending import AFTER, BEFORE, CONTEXT, FILE, REPORT, Agent, Json, install, run
from tests.e2e.scripted_model import called

PATCH = f"*** Begin Patch\n*** Update File: {FILE}\n@@\n-{BEFORE}+{AFTER}*** End Patch\n"
INSTRUCTIONS = "You are a coding agent. Read files with commands, and change them with apply_patch."

MODEL: Json = {
    "slug": "local",
    "display_name": "local",
    "base_instructions": INSTRUCTIONS,
    "model_messages": None,
    "context_window": CONTEXT,
    "max_context_window": CONTEXT,
    "shell_type": "unified_exec",
    "apply_patch_tool_type": "freeform",
    "supported_reasoning_levels": [],
    "default_reasoning_level": None,
    "input_modalities": ["text"],
    "experimental_supported_tools": [],
    "supports_search_tool": False,
    "supports_experimental_context": False,
    "support_verbosity": False,
    "use_responses_lite": False,
    "tool_mode": None,
    "multi_agent_version": None,
}
"""What an entry of Codex's catalogue says of the model, in place of what it says of OpenAI's."""

OFF = (
    *("apps", "browser_use", "computer_use", "goals", "hooks", "image_generation", "memories"),
    *("plugins", "remote_plugin", "shell_snapshot", "skill_search", "tool_suggest", "view_image"),
)
"""Features, most of which have tools or instructions of their own."""


def settings(catalogue: Path, url: str) -> Json:
    """Of config.toml, in which a dot leads into a table."""
    return {
        "model": "local",
        "model_provider": "llamabox",
        "model_catalog_json": str(catalogue),
        "model_context_window": CONTEXT,
        "web_search": "disabled",
        "project_doc_max_bytes": 0,
        "include_apps_instructions": False,
        "include_collaboration_mode_instructions": False,
        "include_environment_context": False,
        "include_permissions_instructions": False,
        "skills.include_instructions": False,
        "skills.bundled.enabled": False,
        "agents.enabled": False,
        "analytics.enabled": False,
        "check_for_update_on_startup": False,
        "model_providers.llamabox.name": "llamabox",
        "model_providers.llamabox.base_url": f"{url}/v1",
        "model_providers.llamabox.wire_api": "responses",
        "model_providers.llamabox.request_max_retries": 0,
        "model_providers.llamabox.stream_max_retries": 0,
        **{f"features.{name}": False for name in OFF},
    }


def command(folder: Path, environment: dict[str, str], url: str) -> list[str]:
    """Write Codex's settings and return its command."""
    codex, home = install(folder, "@openai/codex", "codex"), folder / "home"
    environment["CODEX_HOME"] = str(home)
    (home / "config.toml").unlink(missing_ok=True)
    printed = subprocess.run([codex, "debug", "models"], env=environment, capture_output=True, check=True).stdout
    entries: list[Json] = json.loads(printed)["models"]
    known = next(one for one in entries if one.get("apply_patch_tool_type") == "freeform")
    (home / "models.json").write_text(json.dumps({"models": [{**known, **MODEL}]}))
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings(home / "models.json", url).items()]
    (home / "config.toml").write_text("".join(lines))
    return [codex, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]


def faults(events: list[Json]) -> list[str]:
    """What is wrong in the transcript."""
    items: list[dict[str, Any]] = [event["item"] for event in events if event["type"] == "item.completed"]
    kinds = [item["type"] for item in items if item["type"] != "error"]
    if kinds != ["command_execution", "file_change", "agent_message"]:
        return [f"the conversation has {kinds}"]
    return [] if items[-1]["text"] == REPORT else [f"the report is {items[-1]['text']!r}"]


CODEX = Agent(
    route="/v1/responses",
    reading=lambda file: called("exec_command", {"cmd": f"cat {file.name}"}),
    changing=lambda file: called("apply_patch", {"input": PATCH}),
    command=command,
    faults=faults,
)

if __name__ == "__main__":
    sys.exit(run("codex", CODEX, sys.argv[1:]))
