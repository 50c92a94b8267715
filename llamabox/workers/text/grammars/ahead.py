"""Grammars whose masks are computed beside the engine's thread, while the model computes the next token."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import partial

from llamabox.engine.grammar import Constraint, Grammar, TokenMask
from llamabox.workers.text.grammars.beside import Beside, Piece


class AheadConstraint:
    """A Constraint around another one, whose mask the `helper` computes beside the next decode.

    Everything else waits for the helper, so that one thread at a time uses the inner constraint. What the helper has
    not begun is done at once instead.
    """

    def __init__(self, inner: Constraint, helper: Beside) -> None:
        self._inner = inner
        self._helper = helper
        self._coming: Piece | None = None  # the mask of the present state

    @property
    def is_complete(self) -> bool:
        if self._coming is not None:
            self._settle()
        return self._inner.is_complete

    def forced(self, n_most: int) -> list[int]:
        if self._coming is not None:
            self._settle()
        return self._inner.forced(n_most)

    def accept(self, token: int) -> None:
        if self._coming is not None:
            self._settle()
        self._inner.accept(token)

    def is_free_behind(self, token: int) -> bool:
        if self._coming is not None:
            self._settle()
        return self._inner.is_free_behind(token)

    def accept_beside(self, token: int) -> None:
        if self._coming is not None:
            self._settle()
        self._coming = self._helper.put(self._inner.accept_beside, token)

    def accept_all(self, tokens: Seq[int]) -> None:
        self._settle()
        self._inner.accept_all(tokens)

    def try_accept(self, token: int) -> bool:
        if self._coming is not None:
            self._settle()
        return self._inner.try_accept(token)

    @property
    def is_prepared(self) -> bool:
        return self._coming is not None or self._inner.is_prepared

    def prepare(self, *, at_once: bool = False) -> None:
        if self._coming is None and not self._inner.is_prepared:
            self._coming = self._helper.put(self._inner.prepare)
        if at_once:
            self._helper.begin()

    def mask(self) -> TokenMask:
        if self._coming is not None:
            self._settle()
        if not self._inner.is_prepared:
            self._inner.prepare()
        return self._inner.mask()

    def prepare_choice(self) -> None:
        if self._coming is None and not self._inner.is_prepared:
            self._coming = self._helper.put(self._inner.prepare_choice)

    def choice(self) -> TokenMask | None:
        if self._coming is not None:
            self._settle()
        return self._inner.choice()

    def n_allowed(self, tokens: Seq[int]) -> int:
        self._settle()
        return self._inner.n_allowed(tokens)

    def mask_behind(self, tokens: Seq[int]) -> TokenMask | None:
        self._settle()
        return self._inner.mask_behind(tokens)

    def places(self, draft: Seq[int], *, forces: bool) -> list[TokenMask | None]:
        self._settle()
        return self._inner.places(draft, forces=forces)

    def look_ahead(self, draft: Seq[int], *, forces: bool) -> None:
        self._settle()
        self._coming = self._helper.put(partial(self._inner.look_ahead, draft, forces=forces))

    def masks_ahead(self) -> list[TokenMask | None]:
        self._settle()
        return self._inner.masks_ahead()

    def _settle(self) -> None:
        """Wait for what the helper is to do, or do it. Raises what it raised."""
        if self._coming is not None:
            self._coming.result()
            self._coming = None


class AheadGrammar:
    """A Grammar around another one. Sequences share it, and the helper too."""

    def __init__(self, inner: Grammar, helper: Beside) -> None:
        self._inner = inner
        self._helper = helper

    @property
    def is_ready(self) -> bool:
        return True

    def start(self) -> AheadConstraint:
        return AheadConstraint(self._inner.start(), self._helper)
