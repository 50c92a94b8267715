"""Names of servers and of web pages: what Host and Origin say, and which are let in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

LOCALHOST = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""Origins that the word `localhost` stands for: this machine, any port."""

HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?")

PORTS = {"http": "80", "https": "443"}


class Origins:
    """A set of origins; `*` in it is any, `localhost` any of this machine's."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed)

    @property
    def is_any(self) -> bool:
        return "*" in self._allowed

    @property
    def has_names(self) -> bool:
        """Whether replies depend on who asks."""
        return bool(self._allowed - {"*"})

    def names(self, origin: str) -> bool:
        """Whether the origin is named, and not let in by `*` alone."""
        if origin.lower() in self._allowed - {"*"}:
            return True
        return "localhost" in self._allowed and LOCALHOST.fullmatch(origin) is not None


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` asks the server that it came from. A proxy may have taken its TLS off."""
    scheme, _, authority = origin.lower().partition("://")
    own, asked = HOST.fullmatch(authority), HOST.fullmatch(host.lower())
    if own is None or asked is None or scheme not in PORTS:
        return False
    default = PORTS[scheme]
    return own[1] != "" and own[1] == asked[1] and (own[2] or default) == (asked[2] or default)


def is_address(host: str) -> bool:
    """Whether the host is an IP address and no name."""
    found = HOST.fullmatch(host)
    return found is not None and _address(found[1].strip("[]")) is not None


class Hosts:
    """A set of names that a server may be called by; this machine's own are always in it, `*` is any."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(name.lower().rstrip(".") for name in allowed)

    def __bool__(self) -> bool:
        """Whether any names were given."""
        return bool(self._allowed)

    def __contains__(self, host: str) -> bool:
        found = HOST.fullmatch(host.strip().lower())
        if "*" in self._allowed:
            return True
        if found is None:
            return False
        name = found[1].strip("[]").rstrip(".")
        address = _address(name)
        is_own = name.endswith(".localhost") if address is None else address.is_loopback
        return is_own or name == "localhost" or name in self._allowed


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
