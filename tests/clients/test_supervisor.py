from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llamabox.clients.supervisor import Backoff, Supervisor
from llamabox.wire.server_end import ServerEnd
from llamabox.wire.text import Configure
from llamabox.wire.text_config import TextConfig
from tests.clients.harness import run, worker_env


def test_the_delay_doubles_up_to_its_limit() -> None:
    backoff = Backoff()
    delays = [backoff.after(served=0.0) for _ in range(9)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_only_a_healthy_life_makes_the_delay_short_again() -> None:
    backoff = Backoff()
    assert [backoff.after(served) for served in (0.0, 29.9, 30.0, 0.0, 31.0)] == [0.1, 0.2, 0.1, 0.2, 0.1]


def test_a_worker_is_given_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "of the team")
    seen: list[bytes] = []

    async def session(channel: ServerEnd) -> float:
        assert supervisor.pid is not None
        seen.append(Path(f"/proc/{supervisor.pid}/environ").read_bytes())
        channel.send(Configure(TextConfig(model="exit")))
        await channel.serve(lambda _: None)
        return 0.0

    async def main() -> None:
        supervisor.start()
        await ended.wait()
        await supervisor.stop(grace=1.0)

    def is_over(code: int | None, how: str) -> bool:
        ended.set()
        return False

    ended = asyncio.Event()
    supervisor = Supervisor(
        "tests.clients.fake_worker", session, is_over, env=worker_env(tmp_path / "lives"), backoff=Backoff()
    )
    run(main())
    assert b"PATH=" in seen[0]
    assert b"of the team" not in seen[0]


def test_stopping_calls_a_planned_restart_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def session(channel: ServerEnd) -> float:
        channel.send(Configure(TextConfig(model="exit")))
        await channel.serve(lambda _: None)
        return 0.0

    async def main() -> None:
        endings: list[tuple[int | None, str]] = []
        ended = asyncio.Event()

        def again(code: int | None, how: str) -> bool:
            endings.append((code, how))
            ended.set()
            return True

        env = worker_env(tmp_path / "lives")
        supervisor = Supervisor("tests.clients.fake_worker", session, again, env=env, backoff=Backoff(first=3600.0))
        supervisor.start()
        await ended.wait()
        await supervisor.stop(grace=1.0)
        assert endings == [(3, "exited with code 3")]
        assert (supervisor.pid, supervisor.n_restarts) == (None, 0)

    run(main())
    assert "next start of tests.clients.fake_worker in 3600 s" in caplog.text
    assert "does not end" not in caplog.text


@pytest.mark.parametrize("where", ["what it needs", "its session"])
def test_what_nobody_expects_is_a_death_and_not_the_end_of_all_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """As when the name of an RPC server cannot be encoded: the server said "Loading model" for ever."""
    n_calls = 0

    def fail_once() -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            raise UnicodeError("label empty or too long")

    async def may_start() -> bool:
        if where == "what it needs":
            fail_once()
        return True

    async def session(channel: ServerEnd) -> float:
        if where == "its session":
            fail_once()
        channel.send(Configure(TextConfig(model="exit")))
        await channel.serve(lambda _: None)
        return 0.0

    async def main() -> None:
        endings: list[tuple[int | None, str]] = []
        ended = asyncio.Event()

        def again(code: int | None, how: str) -> bool:
            endings.append((code, how))
            if len(endings) == 2:
                ended.set()
            return len(endings) < 2

        env = worker_env(tmp_path / "lives")
        backoff = Backoff(first=0.01, most=0.01)
        supervisor = Supervisor(
            "tests.clients.fake_worker", session, again, env=env, backoff=backoff, may_start=may_start
        )
        supervisor.start()
        await ended.wait()
        await supervisor.stop(grace=1.0)
        how = "cannot be kept running: UnicodeError('label empty or too long')"
        assert endings == [(None, how), (3, "exited with code 3")]
        assert supervisor.n_restarts == 1

    run(main())
    assert "Traceback" in caplog.text
