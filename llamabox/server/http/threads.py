"""Work whose length a request decides runs on a thread where it is long, so that the event loop goes on answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

MANY = 4096
"""Looking at this many values takes some milliseconds: more are not looked at on the event loop."""

P = ParamSpec("P")
T = TypeVar("T")


def n_values(value: Any) -> int:
    """The number of values in an array, with those of the arrays in it; 1 for anything else."""
    if not isinstance(value, list):
        return 1
    return len(value) + sum(len(item) for item in value if isinstance(item, list))


async def off_loop(n: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `function`, which looks at `n` values, a microsecond each. Many are left to a thread."""
    if n <= MANY:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
