"""Which addresses may use the RPC server. Its protocol has neither keys nor encryption: there is nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = tuple[Network, ...]

PRIVATE: Networks = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Loopback, private and link-local: nobody reaches these from the Internet."""


def networks(text: str) -> Networks:
    """Addresses and ranges, separated by commas. Raises ValueError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("expected addresses as 192.168.1.0/24 or 10.0.0.7")
    try:
        return tuple(ipaddress.ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"expected addresses as 192.168.1.0/24 or 10.0.0.7: {error}") from None


def is_allowed(address: str, allowed: Iterable[Network]) -> bool:
    """Whether a peer with this address, as `getpeername` has it, may come."""
    peer = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
        peer = peer.ipv4_mapped
    return any(peer in network for network in allowed)


def beyond_private(allowed: Iterable[Network]) -> Networks:
    """The networks that are not wholly within `PRIVATE`."""
    return tuple(network for network in allowed if not any(_within(network, private) for private in PRIVATE))


def _within(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def shown(allowed: Iterable[Network]) -> str:
    """Networks as the command line has them."""
    return ",".join(str(network) for network in allowed)
