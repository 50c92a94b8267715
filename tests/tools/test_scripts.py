"""tools/*.sh against a prepared server: what they send, what they print."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from tests.tools.fake_server import serving, sse

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SETTINGS = (
    *("MAX_TOKENS", "SEED", "STOP", "TEMP", "TOP_P", "TOP_K", "N_PREDICT", "API_KEY", "LOG_FILE", "LOGPROBS"),
    *("N", "SIZE", "QUALITY", "STYLE", "SAMPLER", "CFG_SCALE", "SAMPLE_STEPS", "NEGATIVE_PROMPT", "IMAGE", "MASK"),
    "AUDIO",
)


class Served(Protocol):
    url: str


def run(script: str, server: Served, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    for tool in ("bash", "curl", "jq"):
        assert shutil.which(tool), f"the scripts need {tool}: install it"
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        ["bash", str(TOOLS / script), *words],
        input=stdin,
        env={**clean, "API_URL": server.url, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def chunk(content: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], "usage": None, **more}


CHAT = sse(
    {"choices": [{"delta": {"role": "assistant", "content": None}}]},
    chunk('Héllo "you"\n'),
    chunk("  🙂 \\n $HOME `x` %s\n\n"),
    {"choices": [], "usage": {"completion_tokens": 7, "tokens_per_second": 12.3456, "details": {}}},
)
CHAT_TEXT = 'Héllo "you"\n  🙂 \\n $HOME `x` %s\n\n'


def test_chat_once() -> None:
    with serving({"/v1/chat/completions": [CHAT]}) as server:
        done = run("chat.sh", server, 'say "hi" & $PATH', API_KEY="k-1")
    assert done.stdout == CHAT_TEXT + "\n"
    assert "completion_tokens: 7, tokens_per_second: 12.35" in done.stderr
    assert done.returncode == 0
    _, headers, body = server.requests[0]
    assert headers["authorization"] == "Bearer k-1"
    assert body["messages"] == [{"role": "user", "content": 'say "hi" & $PATH'}]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    for name in ("max_tokens", "seed", "stop"):
        assert body[name] is None


def test_chat_settings_become_fields() -> None:
    settings = {"MAX_TOKENS": "9", "SEED": "1", "STOP": "END it", "TEMP": "0.1", "RESPONSE_FORMAT": '{"type": "text"}'}
    with serving({"/v1/chat/completions": [CHAT]}) as server:
        run("chat.sh", server, "x", **settings)
    body = server.requests[0][2]
    assert (body["max_tokens"], body["seed"], body["stop"], body["temperature"]) == (9, 1, "END it", 0.1)
    assert body["response_format"] == {"type": "text"}


def test_a_picture_goes_with_the_first_message_however_large_it_is(tmp_path: Path) -> None:
    picture, sound = tmp_path / "a cat.JPG", tmp_path / "a.wav"
    picture.write_bytes(bytes(range(256)) * 4096)
    sound.write_bytes(b"RIFF")
    with serving({"/v1/chat/completions": [CHAT]}) as server:
        done = run("chat.sh", server, stdin="what?\nand now?\n", IMAGE=str(picture), AUDIO=str(sound))
    assert done.returncode == 0, done.stderr
    first, second = (body["messages"] for _, _, body in server.requests)
    url = "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()
    assert first[0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "text", "text": "what?"},
    ]
    assert second[0] == first[0]
    assert second[2] == {"role": "user", "content": "and now?"}


def test_a_picture_that_is_not_there() -> None:
    with serving({"/v1/chat/completions": [CHAT]}) as server:
        done = run("chat.sh", server, "what?", IMAGE="/no/such.png")
    assert (done.returncode, done.stderr) == (1, "cannot read /no/such.png\n")
    assert server.requests == []


def test_chat_talks_on() -> None:
    with serving({"/v1/chat/completions": [CHAT]}) as server:
        done = run("chat.sh", server, stdin="one\n\ntwo")
    assert done.stdout.count(CHAT_TEXT) == 2
    assert [message["role"] for message in server.requests[1][2]["messages"]] == ["user", "assistant", "user"]
    assert server.requests[1][2]["messages"][1]["content"] == CHAT_TEXT
    assert server.requests[1][2]["messages"][2]["content"] == "two"


def test_chat_drops_a_question_without_an_answer() -> None:
    with serving({"/v1/chat/completions": ['error: {"message": "busy"}\n\n', CHAT]}) as server:
        done = run("chat.sh", server, stdin="one\ntwo\n")
    assert "error: busy" in done.stderr
    assert [message["content"] for message in server.requests[1][2]["messages"]] == ["two"]


@pytest.mark.parametrize("script", ["chat.sh", "completion.sh"])
@pytest.mark.parametrize(
    "answer",
    [
        '{"error": {"code": 400, "message": "too long", "type": "x"}, "detail": "too long"}',
        'data: {"error": {"code": 500, "message": "too long"}}\n\n',
        'error: {"code": 500, "message": "too long"}\n\n',
    ],
)
def test_errors_of_every_shape(script: str, answer: str, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    with serving({"/v1/chat/completions": [answer], "/completion": [answer]}, status=400) as server:
        done = run(script, server, f"@{body}")
    assert "error: too long" in done.stderr
    assert done.returncode == 1


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"messages": [],\n "x": 1}')
    plain = json.dumps({"choices": [{"message": {"content": "plain"}}], "usage": {"total_tokens": 3}})
    with serving({"/v1/chat/completions": [plain]}) as server:
        done = run("chat.sh", server, f"@{body}")
    assert server.requests[0][2] == {"messages": [], "x": 1}
    assert (done.stdout, done.returncode) == ("plain\n", 0)


def test_nobody_there() -> None:
    with serving({}) as server:
        pass
    done = run("chat.sh", server, "x")
    assert f"no answer from {server.url}" in done.stderr
    assert done.returncode == 1
    assert run("completion.sh", server, "x").returncode == 1


@pytest.mark.parametrize("script", ["chat.sh", "completion.sh"])
def test_usage(script: str) -> None:
    with serving({}) as server:
        pass
    done = run(script, server, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {script}" in done.stdout
    assert run(script, server, "two", "words").returncode == 1


COMPLETION = sse(
    {"content": " I am\n", "stop": False},
    {"content": "here.", "stop": False},
    {"content": "", "stop": True, "timings": {"predicted_n": 4, "predicted_per_second": 9.876}},
    done=False,
)


def test_completion() -> None:
    with serving({"/tokenize": ['{"tokens": [1, 2, 3]}'], "/completion": [COMPLETION]}) as server:
        done = run("completion.sh", server, stdin="who?\nsure?\n", SEED="5")
    assert done.stdout.count(" I am\nhere.\n") == 2
    assert "predicted_n: 4, predicted_per_second: 9.88" in done.stderr
    (_, _, tokenize), (_, _, first), (_, _, second) = server.requests
    assert first["prompt"].startswith(tokenize["content"])
    assert first["prompt"].endswith("\n### Human: who?\n### Assistant:")
    assert second["prompt"] == first["prompt"] + " I am\nhere.\n### Human: sure?\n### Assistant:"
    assert (first["n_keep"], first["seed"], first["n_predict"]) == (3, 5, None)
    assert (first["temperature"], first["top_p"], first["top_k"], first["stream"]) == (0.8, 0.9, 40, True)
