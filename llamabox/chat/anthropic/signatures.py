"""Signatures of thoughts: what a thinking block has beside its text, and comes back with in the history."""

from __future__ import annotations

import base64
import binascii
import zlib

SHOWN = "llamabox"
"""The signature of a thought whose text stands in its block."""

PREFIX = f"{SHOWN}."
"""Begins a signature that holds the thought itself."""

MAX_THOUGHT = 1 << 20
"""Bytes that a signature is unpacked to: no answer has a longer thought, and a forged one is no bomb."""


def sign(thought: str) -> str:
    """The signature of a thought that is not shown: the server keeps nothing, so the block carries it."""
    packed = zlib.compress(thought.encode(errors="replace"))
    return PREFIX + base64.b64encode(packed).decode()


def signed(signature: str) -> str:
    """The thought that a signature holds; empty for one that holds none of ours."""
    if not signature.startswith(PREFIX):
        return ""
    try:
        packed = base64.b64decode(signature.removeprefix(PREFIX), validate=True)
        return zlib.decompressobj().decompress(packed, MAX_THOUGHT).decode(errors="replace")
    except (binascii.Error, ValueError, zlib.error):
        return ""
