"""Whoever owns a native object frees it once, however it is closed."""

from __future__ import annotations

import pytest

from llamabox.bindings.ffi import Owned


def test_it_is_freed_once() -> None:
    freed: list[str] = []
    owned = Owned("pointer", freed.append, "thing")
    assert (owned.is_open, owned.handle) == (True, "pointer")
    for _ in range(2):
        owned.close()
    assert freed == ["pointer"]
    assert not owned.is_open


def test_the_end_of_a_with_frees_it() -> None:
    freed: list[str] = []
    with Owned("pointer", freed.append, "thing") as owned:
        assert owned.is_open
        assert freed == []
    assert freed == ["pointer"]


def test_a_closed_one_is_not_used() -> None:
    owned = Owned("pointer", lambda _: None, "thing")
    owned.close()
    with pytest.raises(AssertionError, match="the thing is closed"):
        owned.handle  # noqa: B018
