"""The token rate that a request asks for, against the server's cap (docs/api.md, Token rate)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from llamabox.errors import RateTooHigh

HEADER = "x-request-tokens-per-second"


def asked_rate(scope: Scope, cap: int) -> int:
    """Tokens per second that each of the request's texts is limited to; 0: no limit. Raises RateTooHigh.

    Without a cap no request is limited, with one only requests that ask. A header that is no number asks for the cap.
    """
    text = Headers(scope=scope).get(HEADER)
    if text is None or cap == 0:
        return 0
    try:
        rate = int(text)
    except ValueError:
        return cap
    if rate > cap:
        raise RateTooHigh("This request exceeds the maximum tokens per second")
    return max(rate, 0)
