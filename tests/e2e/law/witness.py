"""A stream and a probe of /health whose times are written down, in a process of their own: `python witness.py PORT`.

Two kinds of lines go to standard output: `token T` for each event of the stream, `health T SECONDS` for each answer.
T is time.monotonic(), which all processes of a machine share.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

STREAM = {
    "prompt": "Once upon a time",
    "n_predict": 100_000,
    "ignore_eos": True,
    "stream": True,
    "seed": 7,
    "id_slot": 0,
    "speculative.n_max": 0,  # else its own drafts would be among its gaps
}
PROBE = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
PAUSE = 0.05
"""Seconds between two probes."""


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def stream(port: int) -> None:
    body = json.dumps(STREAM).encode()
    head = f"POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode() + body)
        while piece := sock.recv(65536):
            if b"data: " in piece:
                tell("token", time.monotonic())


def probe(port: int) -> None:
    while True:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(PROBE)
            while sock.recv(65536):
                pass
        tell("health", begun, time.monotonic() - begun)
        time.sleep(PAUSE)


if __name__ == "__main__":
    threading.Thread(target=probe, args=(int(sys.argv[1]),), daemon=True).start()
    stream(int(sys.argv[1]))
