"""Which hosts media may be fetched from: the value of `--media-url`, and which addresses are everybody's."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NOT_PUBLIC_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
"""IANA's registry of special addresses: this machine, private networks, link-local, shared, examples, multicast, the
rest."""

PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
"""All that is handed out. Outside are loopback, local and multicast addresses, and NAT64 and mapped ones, which lead
to an IPv4 address that would have to be looked at again."""

NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Teredo and other special ones, examples, 6to4."""

NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")

NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
"""Hosts that the system reads as an address, in any of C's ways to write numbers: 2130706433, 0x7f.1, 0177.0.0.1."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    return address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


def as_address(host: str) -> Address | None:
    """The address that a host is in its usual form; None for a name. Raises ValueError for one in another form."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        if ":" in host or NUMERIC.fullmatch(host):
            raise ValueError(f"{host!r} is no address in its usual form") from None
        return None
    if "%" in host:
        raise ValueError(f"{host!r} names a network card")
    return found


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that media may be fetched from, with the port where only that one is allowed. None: nothing is fetched."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    any_host: bool = False

    def __bool__(self) -> bool:
        return self.any_host or bool(self.hosts)

    def allows(self, host: str, port: int) -> bool:
        """Whether a URL may name this host, in lower case."""
        return self.any_host or self.names(host.rstrip("."), port)

    def may_reach(self, address: Address, port: int) -> bool:
        """Whether a host that is allowed may be this address. One that is not public must be named itself."""
        return is_public(address) or self.names(str(address), port)

    def names(self, host: str, port: int) -> bool:
        """Whether the host is named itself."""
        return (host, None) in self.hosts or (host, port) in self.hosts


def allowed_hosts(text: str) -> AllowedHosts:
    """From `HOST,HOST:PORT,[IPV6]:PORT,any`. Raises ValueError with what would be right."""
    parts = [part.strip().lower() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("expected hosts, as images.example,10.0.0.5:9000, or any")
    found = frozenset(_entry(part) for part in parts if part != "any")
    return AllowedHosts(found, any_host="any" in parts)


def _entry(part: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?", part)
    plain = None if bracketed or part.count(":") > 1 else re.fullmatch(r"([^:]+)(?::([0-9]{1,5}))?", part)
    found = bracketed or plain
    host, port = (found[1], found[2]) if found else (part, None)
    try:
        address = as_address(host)
    except ValueError as error:
        raise ValueError(f"expected a name or an address: {error}") from None
    if address is None and not NAME.fullmatch(host):
        raise ValueError(f"expected a host without scheme and path, as images.example, not {part!r}")
    if port is not None and not 0 < int(port) < 1 << 16:
        raise ValueError("expected a port from 1 to 65535")
    return str(address or host.rstrip(".")), None if port is None else int(port)
