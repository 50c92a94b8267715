"""What a server listens on, made before a model is loaded and before what serves is imported."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass

from llamabox.server.listening.binding import bind_sockets, unix_paths
from llamabox.server.listening.config import ListenConfig
from llamabox.server.listening.tls import tls_context


@dataclass(frozen=True, slots=True)
class Doors:
    """Listening sockets, and TLS for them or None."""

    sockets: list[socket.socket]
    tls: ssl.SSLContext | None

    def close(self) -> None:
        """For doors at which nobody serves."""
        for path in unix_paths(self.sockets):
            with contextlib.suppress(OSError):
                os.unlink(path)
        for sock in self.sockets:
            sock.close()


def open_doors(config: ListenConfig) -> Doors:
    """Raises OptionsError if key or certificate cannot be used, ListenError if a host or port cannot be listened on."""
    tls = tls_context(config)
    return Doors(bind_sockets(config.hosts, config.port, reuse_port=config.reuse_port), tls)
