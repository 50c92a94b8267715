"""Texts that clients keep for the server: the `encrypted_content` of reasoning items and of compactions.

Clients that ask for nothing to be stored send such an item back as they got it. Nothing of it is secret here, so it is
the text itself, in base64 behind a word that tells it from another server's.
"""

from __future__ import annotations

import base64
import binascii

OURS = "llamabox1."


def sealed(text: str) -> str:
    """The text as `encrypted_content`."""
    return OURS + base64.b64encode(text.encode("utf-8", "replace")).decode()


def unsealed(content: str) -> str:
    """The text in an `encrypted_content`; empty where another server made it."""
    if not content.startswith(OURS):
        return ""
    try:
        return base64.b64decode(content.removeprefix(OURS), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
