from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Lives:
    """A supervisor of fake workers that exit with code 3 as soon as they are configured, until `n_most` have ended.

    `endings` are those that the supervisor told. `in_session` is called at the start of each life's session.
    """

    def __init__(
        self, folder: Path, n_most: int, in_session: Callable[[], None] = lambda: None, **settings: Any
    ) -> None:
        self.endings: list[tuple[int | None, str]] = []
        self._n_most = self._n_allowed = n_most
        self._in_session = in_session
        self._over = asyncio.Event()
        settings.setdefault("backoff", Backoff())
        self.supervisor = Supervisor(
            "tests.clients.fake_worker", self._session, self._ended, env=worker_env(folder / "lives"), **settings
        )

    async def run(self, *, goes_on: bool = False) -> None:
        """All lives. `goes_on`: the supervisor is told that another should follow, and is stopped instead."""
        self._n_allowed += goes_on
        self.supervisor.start()
        await self._over.wait()
        await self.supervisor.stop(grace=1.0)

    async def _session(self, channel: ServerEnd) -> float:
        self._in_session()
        channel.send(Configure(TextConfig(model="exit")))
        await channel.serve(lambda _: None)
        return 0.0

    def _ended(self, code: int | None, how: str) -> bool:
        self.endings.append((code, how))
        if len(self.endings) == self._n_most:
            self._over.set()
        return len(self.endings) < self._n_allowed


def test_a_worker_is_given_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "of the team")
    seen: list[bytes] = []

    async def main() -> None:
        def look() -> None:
            assert lives.supervisor.pid is not None
            seen.append(Path(f"/proc/{lives.supervisor.pid}/environ").read_bytes())

        lives = Lives(tmp_path, 1, look)
        await lives.run()

    run(main())
    assert b"PATH=" in seen[0]
    assert b"of the team" not in seen[0]


def test_stopping_calls_a_planned_restart_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lives = Lives(tmp_path, 1, backoff=Backoff(first=3600.0))
        await lives.run(goes_on=True)
        assert lives.endings == [(3, "exited with code 3")]
        assert (lives.supervisor.pid, lives.supervisor.n_restarts) == (None, 0)

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

    async def main() -> None:
        in_session = fail_once if where == "its session" else lambda: None
        lives = Lives(tmp_path, 2, in_session, backoff=Backoff(first=0.01, most=0.01), may_start=may_start)
        await lives.run()
        how = "cannot be kept running: UnicodeError('label empty or too long')"
        assert lives.endings == [(None, how), (3, "exited with code 3")]
        assert lives.supervisor.n_restarts == 1

    run(main())
    assert "Traceback" in caplog.text
