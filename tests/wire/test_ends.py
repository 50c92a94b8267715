from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from llamabox.errors import ChannelBroken
from llamabox.wire import frames
from llamabox.wire.common import Shutdown
from llamabox.wire.frames import MAX_FRAME, PREFIX, encode
from llamabox.wire.questions import Detokenise, Text, Tokens
from llamabox.wire.server_end import ServerEnd
from llamabox.wire.text import Abort, Call, Reply
from llamabox.wire.worker_end import WorkerEnd
from tests.clients.harness import LOOPS, run

Loop = Callable[[], asyncio.AbstractEventLoop]
Ends = tuple[WorkerEnd, socket.socket]
BIG = "x" * (1 << 20)  # several times what a socket's buffer holds


def reply(call_id: int, text: str) -> Reply:
    return Reply(call_id, Text(text))


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A worker's channel, and the bare socket at the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = WorkerEnd(ours)
        yield channel, theirs
        channel.close(timeout=0.0)


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Loop:
    loop: Loop = request.param
    return loop


def test_frames_cut_anywhere_arrive_whole_and_in_order(ends: Ends) -> None:
    channel, peer = ends
    messages = [Abort(str(i) * i) for i in range(20)]
    stream = b"".join(encode(message) for message in messages)

    def dribble() -> None:
        for i in range(0, len(stream), 7):
            peer.sendall(stream[i : i + 7])

    sender = threading.Thread(target=dribble)
    sender.start()
    assert [channel.receive() for _ in messages] == messages
    sender.join()


def test_sending_does_not_block_on_a_peer_that_does_not_read_and_keeps_the_order(ends: Ends) -> None:
    channel, peer = ends
    sent = [reply(i, BIG if i % 3 == 0 else "small") for i in range(12)]
    for message in sent:
        channel.send(message)  # 4 MiB: would block here for ever
    with WorkerEnd(peer) as other:
        assert [other.receive() for _ in sent] == sent


def test_what_is_posted_and_what_is_sent_keeps_one_order(ends: Ends) -> None:
    channel, peer = ends
    sent = [reply(i, BIG if i % 5 == 0 else "small") for i in range(30)]
    for i, message in enumerate(sent):
        (channel.send if i % 3 else channel.post)(message)
    with WorkerEnd(peer) as other:
        assert [other.receive() for _ in sent] == sent


def test_closing_sends_what_is_posted(ends: Ends) -> None:
    channel, peer = ends
    for i in range(20):
        channel.post(Reply(i))
    channel.close()
    with WorkerEnd(peer) as other:
        assert [reply.call_id for reply in iter(other.receive, None) if isinstance(reply, Reply)] == list(range(20))
    channel.post(Reply(21))  # nobody will read it


def test_a_posted_message_that_cannot_be_sent_ends_the_stream(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel, peer = ends
    monkeypatch.setattr(frames, "MAX_FRAME", 1000)
    channel.post(reply(1, "small"))
    channel.post(reply(2, BIG))
    channel.post(reply(3, "lost"))
    with WorkerEnd(peer) as other:
        assert list(iter(other.receive, None)) == [reply(1, "small")]
    assert "cannot be sent" in caplog.text


def test_messages_of_several_threads_are_not_mixed_up(ends: Ends) -> None:
    channel, peer = ends

    def send(key: int) -> None:
        for i in range(200):
            channel.send(reply(key * 1000 + i, BIG[: i * 100]))

    threads = [threading.Thread(target=send, args=(key,)) for key in range(4)]
    for thread in threads:
        thread.start()
    with WorkerEnd(peer) as other:
        ids = [reply.call_id for reply in (other.receive() for _ in range(800)) if isinstance(reply, Reply)]
    for key in range(4):
        assert [i for i in ids if i // 1000 == key] == list(range(key * 1000, key * 1000 + 200))
    for thread in threads:
        thread.join()


def test_closing_sends_what_is_unsent(ends: Ends) -> None:
    channel, peer = ends
    channel.send(reply(1, BIG))
    channel.send(Reply(2))
    received: list[object] = []

    def read() -> None:
        other = WorkerEnd(peer)
        received.extend(iter(other.receive, None))
        other.close()

    reader = threading.Thread(target=read)
    reader.start()
    channel.close()
    reader.join()
    assert received == [reply(1, BIG), Reply(2)]


def test_closing_does_not_wait_for_ever_and_wakes_the_reader(ends: Ends) -> None:
    channel, _ = ends
    channel.send(reply(1, BIG))
    received: list[object] = ["nothing yet"]
    reader = threading.Thread(target=lambda: received.append(channel.receive()))
    reader.start()
    channel.close(timeout=0.01)
    channel.close()
    reader.join()
    assert received[-1] is None
    assert channel.receive() is None
    channel.send(Reply(2))


@pytest.mark.parametrize("n_bytes", [0, 3, PREFIX.size, PREFIX.size + 2])
def test_a_peer_that_is_gone_is_an_end_of_file(ends: Ends, n_bytes: int) -> None:
    channel, peer = ends
    peer.sendall(encode(Abort("a"))[:n_bytes])
    peer.close()
    assert channel.receive() is None
    for _ in range(3):
        channel.send(reply(1, BIG))


def test_a_peer_that_leaves_unread_bytes_behind_is_an_end_of_file_too(ends: Ends) -> None:
    channel, peer = ends
    channel.send(Reply(1))
    peer.sendall(encode(Abort("a")))
    peer.close()
    assert channel.receive() == Abort("a")
    assert channel.receive() is None


BROKEN = {
    "too long": PREFIX.pack(MAX_FRAME, 1),
    "no JSON": PREFIX.pack(3, 0) + b"???",
    "no message": PREFIX.pack(2, 0) + b"{}",
    "unknown kind": PREFIX.pack(11, 0) + b'["wrong",{}]'[:11],
    "a payload": PREFIX.pack(13, 1) + b'["shutdown",{}]'[:13] + b"x",
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN)
def test_a_frame_that_is_no_message_breaks_the_channel(ends: Ends, frame: bytes) -> None:
    channel, peer = ends
    peer.sendall(frame)
    with pytest.raises(ChannelBroken):
        channel.receive()


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN)
def test_it_breaks_the_other_end_too(frame: bytes, new_loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await ServerEnd.open(ours)
            theirs.sendall(frame)
            with pytest.raises(ChannelBroken):
                await channel.serve(lambda _: None)
            channel.close()

    run(main(), new_loop)


def test_both_ends_understand_each_other(new_loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel = await ServerEnd.open(ours)
        with WorkerEnd(theirs) as worker:

            def echo() -> None:
                while isinstance(call := worker.receive(), Call):
                    assert isinstance(call.question, Detokenise)
                    worker.send(Reply(call.call_id, Tokens(call.question.tokens)))
                worker.close()

            echoing = asyncio.get_running_loop().run_in_executor(None, echo)
            questions = [Detokenise([i] * (200_000 if i % 100 == 0 else 1)) for i in range(400)]
            calls = [Call(i, question) for i, question in enumerate(questions)]
            for call in calls:
                channel.send(call)
            assert channel.n_unsent > 0
            channel.send(Shutdown())
            replies: list[object] = []
            await channel.serve(replies.append)
            assert replies == [
                Reply(call.call_id, Tokens(question.tokens)) for call, question in zip(calls, questions, strict=True)
            ]
            await echoing
        channel.close()
        channel.close()
        channel.send(Shutdown())

    run(main(), new_loop)


def test_frames_cut_anywhere_arrive_whole_at_the_other_end_too(new_loop: Loop) -> None:
    messages = [reply(1, "é"), reply(2, BIG), Abort("a"), Reply(3)]
    stream = b"".join(encode(message) for message in messages)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        received: list[object] = []
        channel = await ServerEnd.open(ours)
        serving = asyncio.create_task(channel.serve(received.append))
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        cuts = [*range(1, 80), *range(80, len(stream), 100_001), len(stream)]
        for start, stop in pairwise([0, *cuts]):
            await loop.sock_sendall(theirs, stream[start:stop])
        theirs.close()
        await serving
        channel.close()
        assert received == messages

    run(main(), new_loop)


def test_what_came_before_anybody_served_is_not_lost(new_loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel = await ServerEnd.open(ours)
        with theirs:
            theirs.sendall(encode(Reply(1)) + encode(Reply(2)))
        await asyncio.sleep(0)
        received: list[object] = []
        await channel.serve(received.append)
        channel.close()
        assert received == [Reply(1), Reply(2)]

    run(main(), new_loop)


def test_what_the_handler_raises_ends_the_service(new_loop: Loop) -> None:
    received: list[object] = []

    def handle(message: object) -> None:
        received.append(message)
        if len(received) == 2:
            raise RuntimeError("enough")

    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel = await ServerEnd.open(ours)
        with theirs:
            theirs.sendall(b"".join(encode(Reply(i)) for i in range(5)))
            with pytest.raises(RuntimeError, match="enough"):
                await channel.serve(handle)
            assert received == [Reply(0), Reply(1)]
            channel.close()

    run(main(), new_loop)


def test_an_inherited_descriptor_is_inherited_no_further() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        fd = theirs.detach()
        os.set_inheritable(fd, True)
        with WorkerEnd.from_fd(fd):
            assert not os.get_inheritable(fd)
