"""Option values that name devices and the machines that lend them. Raise ValueError as those of `common` do."""

from __future__ import annotations

import ipaddress
import re

from llamabox.options.values.common import integer


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas, none of them twice."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found or len(set(found)) < len(found):
        raise ValueError("expected names separated by commas, each once")
    return found


MAX_RPC_SERVERS = 16
"""GGML_RPC_MAX_SERVERS."""

MAX_MIB = 1 << 30

HOST = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?"
"""A host name: parts between dots, none of them empty."""


def rpc_servers(text: str) -> tuple[str, ...]:
    """`HOST:PORT` separated by commas. IPv4 addresses or names: ggml's client knows no others."""
    found = names(text)
    for one in found:
        host, _, port = one.rpartition(":")
        if not re.fullmatch(HOST, host) or not re.fullmatch(r"[0-9]{1,5}", port):
            raise ValueError("expected HOST:PORT, as 192.168.0.7:50052, with an IPv4 address or a name")
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{one}: expected a port of 1 to 65535")
    if len(found) > MAX_RPC_SERVERS:
        raise ValueError(f"expected at most {MAX_RPC_SERVERS} servers")
    return found


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    try:
        return str(ipaddress.ip_address(text.strip().strip("[]")))
    except ValueError:
        raise ValueError("expected an IP address, as 0.0.0.0 or ::1") from None


def any_mebibytes(text: str) -> int:
    """Bytes from a count of MiB, which may be 0, or as large as any memory or disk."""
    return integer(0, MAX_MIB)(text) << 20
