"""The anthropic client, unmodified, shows a picture to a model that sees."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.e2e.media.parts import PAIRS, SYSTEM, png, text_of
from tests.e2e.server_process import ServerProcess


def test_a_picture_is_seen_and_counted(server: ServerProcess) -> None:
    figure, background = PAIRS[0]
    source = {"type": "base64", "media_type": "image/png", "data": text_of(png(figure, background))}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "Describe the image."}]
    messages: list[Any] = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello! How can I help you?"},
        {"role": "user", "content": content},
    ]
    asked: dict[str, Any] = {"model": "m", "system": SYSTEM["content"], "messages": messages}
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        with client.messages.stream(**asked, max_tokens=24, extra_body={"temperature": 0}) as stream:
            text = stream.get_final_text()
            usage = stream.get_final_message().usage
        counted = client.messages.count_tokens(**asked).input_tokens
    assert f"{figure} square" in text
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
