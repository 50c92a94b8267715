"""Which web pages may read replies (--cors-origins)."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOCALHOST = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""What the word `localhost` stands for: this machine, any port."""


class Origins:
    """A set of origins; `*` in it is any, `localhost` any of this machine's."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed)

    @property
    def is_any(self) -> bool:
        return "*" in self._allowed

    def __contains__(self, origin: str) -> bool:
        if self.is_any or origin.lower() in self._allowed:
            return True
        return "localhost" in self._allowed and LOCALHOST.fullmatch(origin) is not None
