"""Which addresses may come."""

from __future__ import annotations

import pytest

from llamabox.lending.allow import PRIVATE, beyond_private, is_allowed, networks, shown

INSIDE = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.7.7", "169.254.1.1", "::1", "fd00::1",
    "fe80::1%eth0", "::ffff:192.168.0.1",
)  # fmt: skip
OUTSIDE = ("8.8.8.8", "172.32.0.1", "192.169.0.1", "11.0.0.1", "2001:db8::1", "::ffff:8.8.8.8", "::2", "0.0.0.0")


@pytest.mark.parametrize("address", INSIDE)
def test_private_addresses_may(address: str) -> None:
    assert is_allowed(address, PRIVATE)


@pytest.mark.parametrize("address", OUTSIDE)
def test_others_may_not(address: str) -> None:
    assert not is_allowed(address, PRIVATE)
    assert is_allowed(address, networks("0.0.0.0/0,::/0"))


def test_a_list_means_itself_alone() -> None:
    allowed = networks("10.0.0.7, 2001:db8::/32")
    assert is_allowed("10.0.0.7", allowed)
    assert is_allowed("::ffff:10.0.0.7", allowed)
    assert is_allowed("2001:db8:1::5", allowed)
    assert not is_allowed("10.0.0.8", allowed)
    assert not is_allowed("127.0.0.1", allowed)
    assert shown(allowed) == "10.0.0.7/32,2001:db8::/32"


def test_what_goes_beyond_private_is_told_apart() -> None:
    assert beyond_private(PRIVATE) == ()
    assert beyond_private(networks("10.2.0.0/16,192.168.1.1,fd12::/64")) == ()
    assert shown(beyond_private(networks("10.0.0.0/7,192.168.1.1,::/0"))) == "10.0.0.0/7,::/0"


@pytest.mark.parametrize("text", ["", ",", "here", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", "::g"])
def test_a_wrong_list_says_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected addresses as 192\.168\.1\.0/24"):
        networks(text)
