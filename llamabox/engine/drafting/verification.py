"""The tokens of a step: one of each sequence, and behind it those of its draft as far as they come."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from llamabox import errors
from llamabox.engine.grammar import TokenMask
from llamabox.engine.scheduling.work import Share
from llamabox.engine.seams import Ask, Runner, Sampler
from llamabox.engine.sequence import Sequence


class Verification:
    """A token of one sequence and, as long as its draft has the same, the next ones.

    Without `masks` all tokens may come. Else there is one for each row, or None where the grammar forces the draft's
    token: as without a draft, that comes without being sampled.
    """

    __slots__ = ("_at", "_masks", "_rows", "_sampler", "draft", "tokens")

    def __init__(self, rows: range, sampler: Sampler, draft: Seq[int], masks: Seq[TokenMask | None] = ()) -> None:
        """There is a row for each token of the `draft`, and one behind it, with a mask."""
        self._rows = rows
        self._sampler = sampler
        self._masks = masks
        self._at = 0  # the next row
        self.draft = draft
        self.tokens: list[int] = []

    def ask(self) -> Ask:
        """The rows up to a token that is forced."""
        stop = len(self._rows)
        masks: list[TokenMask] = []
        if self._masks:
            for mask in self._masks[self._at :]:
                if mask is None:
                    break
                masks.append(mask)
            stop = self._at + len(masks)
        return Ask(self._rows[self._at : stop], self._sampler, masks, self.draft[self._at : stop - 1])

    def take(self, ask: Ask, tokens: list[int]) -> bool:
        """Take the tokens of an ask, and those that are forced behind it. Whether there is more to ask."""
        self.tokens += tokens
        stop = self._at + len(ask.rows)
        if stop == len(self._rows) or len(tokens) < len(ask.rows) or tokens[-1] != self.draft[stop - 1]:
            return False
        while self._masks[stop] is None:
            self._sampler.accept(self.draft[stop])
            self.tokens.append(self.draft[stop])
            stop += 1
        self._at = stop
        return True


def sample(
    shares: list[Share], runner: Runner
) -> tuple[dict[Sequence, Verification], list[tuple[Sequence, errors.RequestError]]]:
    """Sample each sequence whose cells are all computed, unless its grammar leaves no choice.

    Returns the sequences whose grammar cannot go on as well, and why.
    """
    found: dict[Sequence, Verification] = {}
    failed: list[tuple[Sequence, errors.RequestError]] = []
    for share in shares:
        if share.rows and share.sequence.sampler is not None:
            try:
                verification = _begin(share, share.sequence.sampler, runner)
            except errors.RequestError as error:
                failed.append((share.sequence, error))
            else:
                if verification is not None:
                    found[share.sequence] = verification
    going = list(found.values())
    while going:
        asks = [one.ask() for one in going]
        answers = runner.sample(asks)
        going = [one for one, ask, tokens in zip(going, asks, answers, strict=True) if one.take(ask, tokens)]
    return found, failed


def _begin(share: Share, sampler: Sampler, runner: Runner) -> Verification | None:
    """What is to be sampled of a sequence; None where its grammar leaves no choice. Raises a RequestError."""
    sequence = share.sequence
    constraint = sequence.constraint
    mask = None
    if constraint is not None:
        if sequence.drafts and (masks := constraint.masks_ahead()):
            n_rows, n_early = len(masks), sequence.n_early
            masks = [mask if mask is None else _early(sequence, mask) for mask in masks[:n_early]] + masks[n_early:]
            return Verification(share.rows[:n_rows], sampler, sequence.drafts[: n_rows - 1], masks)
        if sequence.forced(1):
            return None
        mask = constraint.mask()
        if constraint.is_complete:
            return None
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
