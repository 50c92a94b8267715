"""What a request can make long is done beside the event loop: else nobody would be answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

MANY = 4096
"""Values that are looked at in some milliseconds."""

P = ParamSpec("P")
T = TypeVar("T")


def n_values(value: Any) -> int:
    """Of an array, with those of the arrays in it."""
    if not isinstance(value, list):
        return 1
    return len(value) + sum(len(item) for item in value if isinstance(item, list))


async def beside(n: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` makes of `n` values, which takes a microsecond for each; on a thread where they are many."""
    if n <= MANY:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
