"""tools/chat.sh asks about pictures, as llama-box's users do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.media.parts import SYSTEM, image, png, secret
from tests.e2e.server_process import ServerProcess
from tests.tools.test_scripts import run


def test_llama_box_s_example(server: ServerProcess, tmp_path: Path) -> None:
    body = {
        "model": "demo",
        "stop": ["<end_of_turn>", "\n\n"],
        "stream": True,
        "temperature": 0.1,
        "seed": 1,
        "max_tokens": 24,
        "messages": [
            SYSTEM,
            {"role": "user", "content": [image("green", "black"), {"type": "text", "text": "What is in the image?"}]},
        ],
    }
    file = tmp_path / "data.json"
    file.write_text(json.dumps(body))
    done = run("chat.sh", server, f"@{file}")
    assert done.returncode == 0, done.stderr
    assert "green square" in done.stdout
    assert "prompt_tokens" in done.stderr


def test_a_picture_or_a_recording_by_its_file(server: ServerProcess, tmp_path: Path) -> None:
    picture, recording = tmp_path / "a picture.png", tmp_path / "a.wav"
    picture.write_bytes(png("red", "blue"))
    recording.write_bytes(secret("banana"))
    seen = run("chat.sh", server, "Describe the image.", IMAGE=str(picture), TEMP="0", MAX_TOKENS="24")
    assert "red square" in seen.stdout, seen.stderr
    heard = run("chat.sh", server, "What is the secret word?", AUDIO=str(recording), TEMP="0", MAX_TOKENS="24")
    assert "banana" in heard.stdout, heard.stderr
    wrong = run("chat.sh", server, "What is it?", IMAGE=str(recording))
    assert wrong.returncode == 1
    assert "image" in wrong.stderr
