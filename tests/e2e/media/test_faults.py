"""Pictures and recordings of strangers: each is a right answer or a 400 that names its part, and nobody is harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.media.parts import SYSTEM, image, sound, text_of, user
from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import resident, unharmed, wait_for
from tests.media.fetching.hostile_server import serving
from tests.media.files import BAD, GOOD, bomb, file, flac_of_length, plain, recording, tone
from tests.models.media.colours import COLOURS

CHAT = "/v1/chat/completions"
SLACK = 64 << 20
"""Bytes that a process may grow by while it warms up."""

SOUNDS = {
    "a picture": lambda: file(plain("RGB", (0, 0, 0))),
    "a header alone": lambda: recording(tone(16_000, 1), 16_000)[:44],
    "a day": lambda: flac_of_length(recording(tone(16_000, 1), 16_000, "FLAC"), 24 * 3600 * 16_000),
    "pages that are none": lambda: b"OggS" + bytes(1000),
}


@pytest.fixture
def survivor(server: ServerProcess) -> Iterator[ServerProcess]:
    yield from unharmed(server)


def ask(server: ServerProcess, part: dict[str, Any], **more: Any) -> httpx.Response:
    return server.post(CHAT, {"messages": [SYSTEM, user("Look:", part)], "max_tokens": 1, **more})


def picture(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def refused(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert error["message"].startswith("Field 'messages[1].content[1]"), error
    return str(error["message"])


def test_a_file_that_is_none_is_named(survivor: ServerProcess) -> None:
    for make in BAD.values():
        refused(ask(survivor, picture("data:image/png;base64," + text_of(make()))))
    for address in (
        "",
        "data:image/png;base64,",
        "data:text/html,<html></html>",
        "data:image/png",
        "?",
        "ftp://a/b.png",
    ):
        refused(ask(survivor, picture(address)))
    for make_sound in SOUNDS.values():
        refused(ask(survivor, sound(make_sound())))
    assert "is a recording (WAV), not a picture" in refused(
        ask(survivor, picture(text_of(recording(tone(16_000, 1), 16_000))))
    )


def test_odd_pictures_are_seen(survivor: ServerProcess) -> None:
    """Or are a 400, for stripes. Their tokens are those of any picture."""
    counts = set()
    for name, make in GOOD.items():
        reply = ask(survivor, picture(text_of(make())))
        if "10000" in name:
            refused(reply)
        else:
            assert reply.status_code == 200, name
            counts.add(reply.json()["usage"]["prompt_tokens"])
    assert len(counts) == 1


def test_eleven_pictures_are_eleven(survivor: ServerProcess) -> None:
    parts = [image("red", "blue")] * 11
    body = {"messages": [SYSTEM, user(*parts, "What?")], "max_tokens": 1}
    one = survivor.ok(CHAT, {"messages": [SYSTEM, user(parts[0], "What?")], "max_tokens": 1})
    eleven = survivor.ok(CHAT, body)
    of_a_picture = 16
    more = eleven["usage"]["prompt_tokens"] - one["usage"]["prompt_tokens"]
    assert more == 10 * of_a_picture
    too_many = survivor.post(CHAT, {**body, "messages": [SYSTEM, user(*parts * 10, "What?")]})
    assert too_many.status_code == 400
    assert "tokens" in too_many.json()["error"]["message"]


def test_several_large_pictures_are_seen_side_by_side_and_together(survivor: ServerProcess) -> None:
    """Three in a message, and as many messages at a time as there are slots."""
    large = [file(plain("RGB", COLOURS[name], (2000, 2000))) for name in ("red", "blue", "green")]
    parts = [picture(text_of(one)) for one in large]
    one = {"messages": [SYSTEM, user(*parts, "What colors are the squares?")], "max_tokens": 8, "temperature": 0}
    alone = survivor.ok(CHAT, one)["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: survivor.ok(CHAT, one), range(8)))
    assert {reply["choices"][0]["message"]["content"] for reply in replies} == {alone}


def test_an_answer_in_markup_is_text(survivor: ServerProcess) -> None:
    """As models that read documents write it, whatever it looks like to a parser of calls or thoughts."""
    said = '<table><tr><td>1</td></tr></table><|LOC_5|><fcel>2<nl>{"a": <ecel>'
    messages = [SYSTEM, user(image("red", "blue"), "OCR:")]
    body = {"messages": messages, "max_tokens": 64, "grammar": f"root ::= {json.dumps(said)}"}
    assert survivor.ok(CHAT, body)["choices"][0]["message"]["content"] == said


def test_nothing_inside_is_fetched(survivor: ServerProcess) -> None:
    """Although --media-url allows any host."""

    async def scene() -> None:
        async with serving() as inside:
            for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"):
                url = f"http://{host}:{inside.port}/a.png"
                refused(await asyncio.to_thread(ask, survivor, picture(url)))
            assert inside.heads == []

    asyncio.run(scene())
    assert "--media-path" in refused(ask(survivor, picture("file:///etc/passwd")))


def test_memory_stays_flat(survivor: ServerProcess) -> None:
    """Whatever comes, in the process that answers and in the one that computes."""
    random = np.random.default_rng(3)
    pids = survivor.process.pid, survivor.worker_pid()

    def send() -> None:
        for make in (*GOOD.values(), lambda: bomb(10_000, 10_000), lambda: file(plain("RGB", (1, 2, 3), (2000, 2000)))):
            data = bytearray(make())
            for at in random.integers(0, len(data), 3):
                data[at] = random.integers(256)
            assert ask(survivor, picture(text_of(bytes(data)))).status_code in (200, 400)

    send()
    before = [resident(pid) for pid in pids]
    send()
    send()
    assert [resident(pid) - size < SLACK for pid, size in zip(pids, before, strict=True)] == [True, True]


def test_who_goes_away_while_a_picture_is_read(survivor: ServerProcess) -> None:
    """The children are free again at once, for others."""
    large = file(plain("1", 1, (8192, 8192)))
    for _ in range(6):
        with contextlib.suppress(httpx.TimeoutException):
            part = picture(text_of(large))
            survivor.http.post(CHAT, json={"messages": [user(part)], "max_tokens": 1}, timeout=0.1)
    wait_for(lambda: ask(survivor, image("red", "blue")).status_code == 200, "a picture is read")
