"""tools/*.sh against a real server: asked once, talking, and with a body from a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess
from tests.tools import test_scripts

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve("-c", "1024", "-np", "1", "--no-warmup", "--api-key", "k-1")


def run(
    script: str, server: ServerProcess, *words: str, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return test_scripts.run(script, server, *words, stdin=stdin, **{"API_KEY": "k-1", "TEMP": "0", **env})


def direct(server: ServerProcess, path: str, body: object) -> dict[str, object]:
    response = server.http.post(path, json=body, headers={"Authorization": "Bearer k-1"})
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_chat_once_says_what_the_server_says(server: ServerProcess) -> None:
    done = run("chat.sh", server, QUESTION, MAX_TOKENS="12", SEED="1", STOP='["zzz"]')
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0}
    answer = direct(server, "/v1/chat/completions", body)
    assert done.stdout == answer["choices"][0]["message"]["content"] + "\n"  # type: ignore[index]
    assert "Paris" in done.stdout
    assert "completion_tokens: " in done.stderr
    assert "tokens_per_second: " in done.stderr
    assert done.returncode == 0


def test_chat_talks_on_and_keeps_what_was_said(server: ServerProcess, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("chat.sh", server, stdin=f"{QUESTION}\n\nIs it big?\n", MAX_TOKENS="8", LOG_FILE=str(log))
    assert done.returncode == 0
    assert done.stdout.count("\n") >= 2
    requests = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"messages"')]
    first, second = (one["messages"] for one in requests)
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == first[0]
    assert second[1]["content"] in done.stdout


def test_completion_once_and_talking(server: ServerProcess) -> None:
    done = run("completion.sh", server, QUESTION, N_PREDICT="12")
    assert "Paris" in done.stdout
    assert "predicted_n: " in done.stderr
    assert done.returncode == 0
    talk = run("completion.sh", server, stdin=f"{QUESTION}\nAnd of Italy?\n", N_PREDICT="12")
    assert talk.stdout.startswith(done.stdout)
    assert talk.stderr.count("predicted_n: ") == 2
    assert "### Human:" not in talk.stdout


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_from_a_file(server: ServerProcess, tmp_path: Path, stream: bool) -> None:
    chat, completion = tmp_path / "chat.json", tmp_path / "completion.json"
    chat.write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0, "stream": stream},
            indent=2,
        )
    )
    completion.write_text(json.dumps({"prompt": "1, 2, 3, 4,", "n_predict": 6, "temperature": 0, "stream": stream}))
    assert "Paris" in run("chat.sh", server, f"@{chat}").stdout
    expected = direct(server, "/completion", {"prompt": "1, 2, 3, 4,", "n_predict": 6, "temperature": 0})["content"]
    assert run("completion.sh", server, f"@{completion}").stdout == f"{expected}\n"


@pytest.mark.parametrize("script", ["chat.sh", "completion.sh"])
def test_a_refusal_is_shown(server: ServerProcess, script: str) -> None:
    refused = run(script, server, QUESTION, TEMP='"hot"')
    assert "temperature" in refused.stderr
    assert refused.returncode == 1
    assert run(script, server, QUESTION, API_KEY="wrong").returncode == 1
