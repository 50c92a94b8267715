"""The tokens of one llama_decode."""

from __future__ import annotations

from dataclasses import dataclass, field

from llamabox.engine.request import LoraSet, Media


@dataclass(frozen=True, slots=True)
class MediaRows:
    """Rows [start, stop) of a media chunk, for a batch. The runner knows a chunk's rows by the chunk."""

    media: Media
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Batch:
    """Rows in the order of their slots. Parallel lists of length n_rows, ready to be laid over native arrays.

    `outputs` names the rows whose logits are wanted, in ascending order. All rows are computed with the set `lora`.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    seq_ids: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    lora: LoraSet = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, seq_id: int, tokens: list[int], first_position: int, *, wants_output: bool) -> int:
        """Append a run of one sequence's text tokens; its last row yields logits if wanted. Returns that last row."""
        n_tokens = len(tokens)
        self.tokens += tokens
        self.positions += range(first_position, first_position + n_tokens)
        self.seq_ids += [seq_id] * n_tokens
        row = len(self.tokens) - 1
        if wants_output:
            self.outputs.append(row)
        return row
