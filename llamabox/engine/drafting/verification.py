"""The tokens of a step: one of each sequence, and behind it those of its draft as far as they come."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from llamabox import errors
from llamabox.engine.grammar import ANY, Constraint, TokenMask
from llamabox.engine.scheduling.work import Share
from llamabox.engine.seams import Ask, Runner, Sampler
from llamabox.engine.sequence import Sequence

SIDE_BY_SIDE = 8
"""Masks that are worth waking another thread for, which takes as long as some masks do: 0.1 ms on a busy machine."""


class Verification:
    """A token of one sequence and, as long as its draft has the same, the next ones.

    Without `masks` all tokens may come. Else there is one for each row, or None where the grammar forces the draft's
    token: as without a draft, that comes without being sampled. Where it is ANY, the row is sampled without a mask, and
    once more with one if the `constraint` refuses the token.
    """

    __slots__ = (
        "_at",
        "_constraint",
        "_masks",
        "_rows",
        "_sampler",
        "draft",
        "is_accepted",
        "tokens",
        "wants_mask",
        "was_refused",
    )

    def __init__(
        self,
        rows: range,
        sampler: Sampler,
        draft: Seq[int],
        masks: Seq[TokenMask | None] = (),
        constraint: Constraint | None = None,
    ) -> None:
        """A row for each token of the `draft`, which the grammar allows, and one behind it, with a mask."""
        self._rows = rows
        self._sampler = sampler
        self._masks = list(masks)
        self._constraint = constraint
        self._at = 0  # the next row
        self.draft = draft
        self.tokens: list[int] = []
        self.is_accepted = False  # the constraint has moved on by the only token
        self.was_refused = False  # it has refused a token, or was thought to: its mask was wanted
        self.wants_mask = False  # of the next row, before that is asked for

    def ask(self) -> Ask:
        """The rows up to a token that is forced, or to one that needs a mask where others need none."""
        stop = len(self._rows)
        if stop == 1:
            mask = self._masks[0] if self._masks else ANY
            return Ask(self._rows, self._sampler, () if mask is None or mask is ANY else (mask,))
        masks: list[TokenMask] = []
        if self._masks:
            is_any = self._masks[self._at] is ANY
            for mask in self._masks[self._at :]:
                if mask is None or (mask is ANY) != is_any:
                    break
                masks.append(mask)
            stop = self._at + len(masks)
            masks = [] if is_any else masks
        return Ask(self._rows[self._at : stop], self._sampler, masks, self.draft[self._at : stop - 1])

    def take(self, ask: Ask, tokens: list[int]) -> bool:
        """Take the tokens of an ask, and those that are forced behind it. Whether there is more to ask, by `get_mask`.

        Raises a RequestError where the grammar cannot go on.
        """
        stop = self._at + len(ask.rows)
        if self._constraint is not None and not ask.masks and self._is_refused(self._constraint, tokens):
            self.was_refused = self.wants_mask = True
            self.tokens += tokens[:-1]
            self._at += len(tokens) - 1
            return True
        self.tokens += tokens
        if stop == len(self._rows) or len(tokens) < len(ask.rows) or tokens[-1] != self.draft[stop - 1]:
            return False
        while self._masks[stop] is None:
            self._sampler.accept(self.draft[stop])
            self.tokens.append(self.draft[stop])
            stop += 1
        self._at = stop
        return True

    def _is_refused(self, constraint: Constraint, tokens: list[int]) -> bool:
        """Whether the last of `tokens`, sampled without masks, may not come. Those before it are the draft's."""
        if tokens[-1] < 0:
            return True  # of the tokens that may come none may be NaN
        if not self.draft:
            self.is_accepted = constraint.try_accept(tokens[0])
            return not self.is_accepted
        said = [*self.draft[: self._at], *tokens]
        is_drafted = len(said) < len(self._rows) and said[-1] == self.draft[len(said) - 1]
        return not is_drafted and constraint.n_allowed(said) < len(said)

    def prepare_mask(self) -> None:
        """Have the mask that it wants computed beside the caller."""
        if self._constraint is not None and not self._at:
            self._constraint.prepare(at_once=True)

    def get_mask(self) -> bool:
        """Have the next row sampled with the mask that it wants. False where the text is complete in front of it.

        Raises a RequestError where the grammar cannot go on.
        """
        constraint, self.wants_mask = self._constraint, False
        assert constraint is not None
        if self._at:
            try:
                mask = constraint.mask_behind(self.draft[: self._at])
            except errors.RequestError:
                return False  # whoever comes to that place is told then
        else:
            mask = constraint.mask()
            if constraint.is_complete:
                return False
        self._masks[self._at] = mask
        return mask is not None


Failures = list[tuple[Sequence, errors.RequestError]]
"""Sequences whose grammar cannot go on, and why."""


def begin(shares: list[Share], runner: Runner) -> tuple[dict[Sequence, Verification], Failures]:
    """What is to be sampled of each sequence whose cells are all in the batch, unless its grammar leaves no choice.

    It reads no row, so that it can be done while the batch is computed, but for sequences that tell a distribution.
    """
    found: dict[Sequence, Verification] = {}
    failed: Failures = []
    for share in shares:
        if share.rows and share.sequence.sampler is not None:
            try:
                verification = _given(share, runner) or _begin(share, share.sequence.sampler, runner)
            except errors.RequestError as error:
                failed.append((share.sequence, error))
            else:
                if verification is not None:
                    found[share.sequence] = verification
    return found, failed


def sample(found: dict[Sequence, Verification], runner: Runner) -> Failures:
    """Sample what `begin` has found. Returns the sequences whose grammar cannot go on."""
    failed: Failures = []
    going = {sequence: one for sequence, one in found.items() if not one.tokens}
    while going:
        asks = [one.ask() for one in going.values()]
        answers = runner.sample(asks)
        for (sequence, one), ask, tokens in zip(list(going.items()), asks, answers, strict=True):
            try:
                if one.take(ask, tokens):
                    continue
            except errors.RequestError as error:
                failed.append((sequence, error))
            sequence.n_refused = sequence.n_refused + 1 if one.was_refused else 0
            del going[sequence]
        failed += _get_masks(going)
    return failed


def _get_masks(going: dict[Sequence, Verification]) -> Failures:
    """Have the masks computed that are wanted now. Those that need nothing more go from `going`.

    Returns the sequences whose grammar cannot go on, and why.
    """
    wanting = [(sequence, one) for sequence, one in going.items() if one.wants_mask]
    if len(wanting) >= SIDE_BY_SIDE:
        for _, one in wanting:
            one.prepare_mask()
    failed = []
    for sequence, one in wanting:
        try:
            if one.get_mask():
                continue
        except errors.RequestError as error:
            failed.append((sequence, error))
        sequence.n_refused += 1
        del going[sequence]
    return failed


def _given(share: Share, runner: Runner) -> Verification | None:
    """The next token of a thought's end, where only a computed row tells how likely it is. Raises a RequestError."""
    sequence = share.sequence
    if sequence.may_be_forced or not (ending := sequence.thought_end()):
        return None
    assert sequence.sampler is not None
    if sequence.tells_distribution:
        sequence.distribution = runner.distribution(share.rows[0], sequence.sampler, None)
    sequence.sampler.accept(ending[0])
    given = Verification(share.rows[:1], sequence.sampler, ())
    given.tokens.append(ending[0])
    return given


def _begin(share: Share, sampler: Sampler, runner: Runner) -> Verification | None:
    """What is to be sampled of a sequence; None where there is no choice. Raises a RequestError."""
    sequence = share.sequence
    constraint = sequence.constraint
    mask = None
    if sequence.thought is not None and sequence.forced(1):
        return None
    if constraint is not None:
        is_checked = sequence.is_checked
        if sequence.drafts and (masks := sequence.places if is_checked else constraint.masks_ahead()):
            n_rows, n_early = len(masks), sequence.n_early
            masks = [mask if mask is None else _early(sequence, mask) for mask in masks[:n_early]] + masks[n_early:]
            return Verification(share.rows[:n_rows], sampler, sequence.drafts[: n_rows - 1], masks, constraint)
        if is_checked and not sequence.is_likely_refused:
            return None if sequence.forced(1) else Verification(share.rows[:1], sampler, (), (ANY,), constraint)
        mask = sequence.choice()
        if mask is None:
            return None
        if is_checked:
            masked = Verification(share.rows[:1], sampler, (), (mask,))
            masked.was_refused = True
            return masked
    if n_early := sequence.n_early:
        mask = _early(sequence, mask)
    if sequence.tells_distribution:
        sequence.distribution = runner.distribution(share.rows[0], sampler, mask)
    if mask is not None:
        n_rows = min(n_early, len(share.rows)) if constraint is None else 1
        return Verification(share.rows[:n_rows], sampler, sequence.drafts[: n_rows - 1], [mask] * n_rows)
    return Verification(share.rows, sampler, sequence.drafts)


def _early(sequence: Sequence, mask: TokenMask | None) -> TokenMask:
    """The tokens of a mask that do not end the text; all of them where the grammar leaves it nothing but its end."""
    early = sequence.request.early
    assert early is not None
    if mask is None:
        return early
    both = mask & early
    return both if both.any() else mask
