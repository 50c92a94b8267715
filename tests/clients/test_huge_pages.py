from __future__ import annotations

import pytest

from llamabox.clients.huge_pages import TUNABLES, huge_pages


def test_malloc_is_told_to_ask_for_huge_pages() -> None:
    assert huge_pages({"PATH": "/bin"}) == {TUNABLES: "glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("own", ["", "glibc.malloc.hugetlb=0", "glibc.malloc.arena_max=1"])
def test_what_the_user_tells_malloc_stays(own: str) -> None:
    assert huge_pages({TUNABLES: own}) == {}
