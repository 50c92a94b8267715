"""Asking an RPC server what it is and has, without native code: connect, HELLO, devices, their memory.

ggml's own client aborts its process where a server is not there, is none, or speaks another version. Whoever is about
to use it asks here first. The protocol is that of ggml-rpc.cpp in the pinned sources: a command is a byte, the length
of its body as u64 and the body; an answer is a length and a body; all numbers are little-endian.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from dataclasses import dataclass

PROTOCOL = (7, 0, 0)
"""RPC_PROTO_MAJOR_VERSION, _MINOR_, _PATCH_ of the pinned ggml-rpc.h."""

GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT = 11, 14, 15
"""Commands of ggml's enum rpc_cmd."""

CAPABILITIES = bytes(24)
"""The HELLO's description of a connection: all zero means without RDMA."""

PATIENCE = 3.0
"""Seconds for a connection, and for each answer."""

MAX_DEVICES = 256
"""A larger number is not the answer of an RPC server."""


@dataclass(frozen=True, slots=True)
class RpcServer:
    """An RPC server that can be used. Bytes (free, total) of each device, as they are now."""

    endpoint: str
    version: tuple[int, int, int]
    memory: tuple[tuple[int, int], ...]


class Unusable(Exception):
    """An RPC server cannot be used. The text says why in a few words."""


async def probe(endpoint: str) -> RpcServer:
    """Ask the server at `host:port` what it has. Takes 2 to 4 times PATIENCE at most. Raises Unusable."""
    reader, writer = await _connect(endpoint)
    try:
        version = await _hello(reader, writer)
        [n_devices] = struct.unpack("<I", await _ask(reader, writer, DEVICE_COUNT, b"", 4))
        if n_devices == 0:
            raise Unusable("it has no device")
        if n_devices > MAX_DEVICES:
            raise Unusable("it is no RPC server")
        memory = []
        for device in range(n_devices):
            answer = await _ask(reader, writer, GET_DEVICE_MEMORY, struct.pack("<I", device), 16)
            memory.append(struct.unpack("<QQ", answer))
    except TimeoutError:
        raise Unusable(
            f"no answer within {PATIENCE:g} s: it is no RPC server, hangs, or serves one client at a time and has one"
        ) from None
    except asyncio.IncompleteReadError:
        raise Unusable(
            "it closed the connection: it is no RPC server, does not let this machine in, or speaks another protocol "
            f"than {_dotted(PROTOCOL)}"
        ) from None
    except OSError as error:
        raise Unusable(_words(error)) from None
    finally:
        writer.transport.abort()  # a server that serves one client at a time waits for the end of this one
    return RpcServer(endpoint, version, tuple(memory))


async def _connect(endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = endpoint.rpartition(":")
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    except TimeoutError:
        raise Unusable(f"no connection within {PATIENCE:g} s: the machine or the link is down") from None
    except OSError as error:
        raise Unusable(_words(error)) from None
    except UnicodeError:  # of the codec for names of machines
        raise Unusable("that is no name that a machine can have") from None


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, int, int]:
    """The server's protocol version, which ours can talk to. Another patch level is told, as ggml lets it pass."""
    answer = await _ask(reader, writer, HELLO, CAPABILITIES, 4 + len(CAPABILITIES))
    major, minor, patch = version = struct.unpack_from("<BBB", answer)
    if major != PROTOCOL[0] or minor > PROTOCOL[1]:
        raise Unusable(f"protocol version {_dotted(PROTOCOL)} here and {_dotted(version)} there")
    return major, minor, patch


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: int, body: bytes, n_answer: int
) -> bytes:
    """The answer to one command, which must have so many bytes."""
    async with asyncio.timeout(PATIENCE):
        writer.write(struct.pack("<BQ", command, len(body)) + body)
        [n_bytes] = struct.unpack("<Q", await reader.readexactly(8))
        if n_bytes != n_answer:
            raise Unusable("it is no RPC server")
        return await reader.readexactly(n_answer)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _words(error: OSError) -> str:
    match error:
        case socket.gaierror():
            return "there is no machine of that name"
        case ConnectionRefusedError():
            return "connection refused: no RPC server runs there"
        case ConnectionResetError() | BrokenPipeError():
            return "it broke off the connection"
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "no route to it: the machine or the link is down"
    return error.strerror or str(error)
