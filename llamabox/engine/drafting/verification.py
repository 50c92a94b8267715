"""The tokens of a step: one of each sequence, and behind it those of its draft as far as they come."""

from __future__ import annotations

from llamabox import errors
from llamabox.engine.scheduling.work import Share
from llamabox.engine.seams import Ask, Runner
from llamabox.engine.sequence import Sequence


def sample(
    shares: list[Share], runner: Runner
) -> tuple[dict[Sequence, list[int]], list[tuple[Sequence, errors.RequestError]]]:
    """Sample each sequence whose cells are all computed, unless its grammar leaves no choice.

    Returns the tokens of each, and the sequences whose grammar cannot go on, and why.
    """
    asks: dict[Sequence, Ask] = {}
    failed: list[tuple[Sequence, errors.RequestError]] = []
    for share in shares:
        sequence = share.sequence
        if not share.rows or sequence.sampler is None:
            continue
        ask = Ask(share.rows, sequence.sampler)
        if sequence.constraint is not None:
            try:
                if sequence.forced(1):
                    continue
                mask = sequence.constraint.mask()
                if sequence.constraint.is_complete:
                    continue
            except errors.RequestError as error:
                failed.append((sequence, error))
                continue
            ask.masks = (mask,)
        if sequence.drafts:
            ask.draft = sequence.drafts
        if sequence.tells_distribution:
            [row], mask_or_none = share.rows, ask.masks[0] if ask.masks else None
            sequence.distribution = runner.distribution(row, sequence.sampler, mask_or_none)
        asks[sequence] = ask
    return dict(zip(asks, runner.sample(list(asks.values())), strict=True)), failed
