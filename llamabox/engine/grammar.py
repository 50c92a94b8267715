"""What the engine needs of a grammar. The real one is workers.text.grammars.ahead, fakes stand in tests/fakes.py."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llamabox.errors import RequestError

TokenMask = NDArray[np.uint32]
"""Bit t & 31 of word t >> 5 says whether token t may come; shape [ceil(n_vocab / 32)]."""


ANY: TokenMask = np.zeros(0, np.uint32)
"""Stands for a mask that is not computed: the token is sampled without, and the grammar is asked about it."""


class Constraint(Protocol):
    """What one sequence may say next. It depends on nothing but the tokens accepted so far.

    Tokens that end a generation are in its mask exactly where the text may end; they are not accepted. Every method may
    raise InvalidRequest: the grammar turned out too complex to follow, or leaves nothing to say.
    """

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""

    def forced(self, n_most: int) -> list[int]:
        """The next tokens, up to `n_most`, that come whatever the model thinks; none where there is a choice.

        Changes nothing. The mask allows only the first of them, so that sampling gives the same text more slowly. There
        may be more behind them.
        """

    def accept(self, token: int) -> None:
        """Move on by a token that mask or `forced` allowed."""

    def is_free_behind(self, token: int) -> bool:
        """Whether a token that the mask allows leaves a choice behind it, as far as can be told at a glance."""

    def accept_beside(self, token: int) -> None:
        """Move on by a token that the mask allowed, and prepare the next one, both beside the next decode.

        What is forced behind it is known only then, and comes a step later: `is_free_behind` should have said so.
        """

    def accept_all(self, tokens: Seq[int]) -> None:
        """Move on by tokens that `forced` gave, or that `n_allowed` counted."""

    def try_accept(self, token: int) -> bool:
        """Move on by a token, unless it may not come or ends the text. Whether it has moved on.

        Not where a token is forced: then only the mask tells what may come.
        """

    @property
    def is_prepared(self) -> bool:
        """Whether the mask is computed, so that there is nothing to begin."""

    def prepare(self, *, at_once: bool = False) -> None:
        """No more tokens come before the next `mask`, which is computed beside the next decode.

        `at_once`: the caller waits for no decode, but goes on to other constraints.
        """

    def mask(self) -> TokenMask:
        """The tokens that may come next: valid until the next `accept`, not to be written to.

        Computed at once where nothing was prepared: for a token that was refused, which nobody could foresee.
        """

    def prepare_choice(self) -> None:
        """No more tokens come before the next `choice`, which is worked out beside the next decode."""

    def choice(self) -> TokenMask | None:
        """The mask as by `mask`; None where the next token is forced, or nothing may follow but the end."""

    def n_allowed(self, tokens: Seq[int]) -> int:
        """How many of `tokens` may come one after the other, none that ends the text among them. Changes nothing."""

    def mask_behind(self, tokens: Seq[int]) -> TokenMask | None:
        """The mask behind `tokens`, which it allows. None where the text is complete there. Changes nothing."""

    def places(self, draft: Seq[int], *, forces: bool) -> list[TokenMask | None]:
        """What `walk` finds of a `draft` that it allows without computing masks. Changes nothing."""

    def look_ahead(self, draft: Seq[int], *, forces: bool) -> None:
        """Have the masks of a `draft` that it allows computed beside the next decode: those that `walk` finds."""

    def masks_ahead(self) -> list[TokenMask | None]:
        """What `look_ahead` has computed. Valid until the next `look_ahead`, not to be written to."""


class Grammar(Protocol):
    """A grammar, which may still be compiled while a prompt is computed. Sequences share it."""

    @property
    def is_ready(self) -> bool:
        """Whether it is compiled; then it stays so. Where it cannot be, the engine is told to refuse the request."""

    def start(self) -> Constraint:
        """The constraint of one sequence, at its beginning. Only where it is ready."""


def walk(ahead: Constraint, draft: Seq[int], *, forces: bool, masks: bool) -> list[TokenMask | None]:
    """The mask of the next token, and of those behind each token of `draft`, as far as tokens are sampled there.

    None where the grammar forces the draft's token, which comes without being sampled; only if it `forces` at all. The
    list ends with a mask. It is shorter than the draft where the text may be complete, where another token than the
    draft's is forced, and where the grammar cannot be followed. Moves `ahead` on.

    Without `masks` there is ANY in their places, and the text may be complete behind the list's end or before.
    """
    found: list[TokenMask | None] = []
    try:
        for token in (*draft, None):
            if forces and (forced := ahead.forced(1)):
                if forced[0] != token:
                    break
                found.append(None)
            else:
                mask = ahead.mask().copy() if masks else ANY
                if ahead.is_complete:
                    break
                found.append(mask)
            if token is not None:
                ahead.accept(token)
    except RequestError:
        pass  # whoever comes to that place is told then
    while found and found[-1] is None:
        found.pop()
    return found
