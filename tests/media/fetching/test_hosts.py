"""Which addresses are public, which hosts the user allows, and what is an address in disguise."""

from __future__ import annotations

import ipaddress

import pytest

from llamabox.media.fetching.hosts import AllowedHosts, allowed_hosts, as_address, is_public

INSIDE = [
    *(
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
    ),
    *("100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "fe80::1"),
    *("fc00::1", "fd12::1", "fec0::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1"),
    *("2001::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1"),
]

OUTSIDE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860::8888"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_open_internet_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.", "0", "1.2.3.4.5", "256.1.1.1"),
        *("017700000001", "127.0.0.0x1", "fe80::1%eth0", "::ffff:999.1.1.1", "1:2", "a.b.1"),
    ],
)
def test_addresses_in_another_form_are_refused(host: str) -> None:
    """Whether the system would read them as an address or not."""
    with pytest.raises(ValueError, match=r"address|card"):
        as_address(host)


@pytest.mark.parametrize("host", ["images.example", "localhost", "7up.example", "1e100.net", "a.0xg"])
def test_names_are_no_addresses(host: str) -> None:
    assert as_address(host) is None


def test_nothing_is_allowed_without_the_option() -> None:
    assert not AllowedHosts()
    assert not AllowedHosts().allows("images.example", 443)


def test_hosts_are_allowed_by_name_and_port() -> None:
    allowed = allowed_hosts(" Images.Example, other.example:8443 ,10.0.0.5,[::1]:80,fd00::1")
    assert allowed
    assert allowed.allows("images.example", 80)
    assert allowed.allows("images.example.", 9000)
    assert allowed.allows("other.example", 8443)
    assert not allowed.allows("other.example", 443)
    assert not allowed.allows("an.images.example", 80)
    assert not allowed.allows("example", 80)
    assert allowed.allows("10.0.0.5", 9000)
    assert (allowed.allows("::1", 80), allowed.allows("::1", 81), allowed.allows("fd00::1", 81)) == (True, False, True)


def test_any_host_is_any_but_not_any_address() -> None:
    allowed = allowed_hosts("any,127.0.0.1:80")
    assert allowed.allows("whatever.example", 1234)
    reached = [
        allowed.may_reach(ipaddress.ip_address(address), port)
        for address, port in (("8.8.8.8", 1234), ("127.0.0.1", 80), ("127.0.0.1", 81), ("10.0.0.1", 80))
    ]
    assert reached == [True, True, False, False]


@pytest.mark.parametrize(
    "text", ["", " , ", "https://images.example", "a/b", "a:0", "a:99999", "a:b", "0x7f.1", "-a.example", "a b", "*"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        allowed_hosts(text)
