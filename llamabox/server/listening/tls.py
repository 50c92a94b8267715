"""TLS of the listening sockets. Hypercorn negotiates HTTP/2 or HTTP/1.1 over it."""

from __future__ import annotations

import ssl

from llamabox.errors import OptionsError
from llamabox.server.listening.config import ListenConfig


def tls_context(config: ListenConfig) -> ssl.SSLContext | None:
    """The TLS context; None without key and certificate. OptionsError: one is missing, unreadable or unfit."""
    key, certificate = config.ssl_key_file, config.ssl_cert_file
    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        given, missing = ("--ssl-cert-file", "--ssl-key-file")[:: 1 if key is None else -1]
        raise OptionsError(f"{given} needs {missing} as well: TLS takes a certificate and its key")
    for flag, path in (("--ssl-key-file", key), ("--ssl-cert-file", certificate)):
        try:
            open(path, "rb").close()
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise OptionsError(f"{flag} {path}: cannot read the file: {why}") from None
    from hypercorn.config import Config  # only here: the worker's start waits until this is decided

    hypercorn = Config()
    hypercorn.keyfile, hypercorn.certfile = key, certificate
    hypercorn.keyfile_password = ""  # else OpenSSL would ask the terminal for that of an encrypted key
    try:
        return hypercorn.create_ssl_context()
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        reason = getattr(exc, "reason", None) or exc
        raise OptionsError(
            f"--ssl-key-file {key} and --ssl-cert-file {certificate} cannot be used ({reason}): "
            "expected PEM files, an unencrypted key and the certificate made for it"
        ) from None
