"""What one llama_decode computes: runs of cells, each of one sequence."""

from __future__ import annotations

from collections.abc import Sequence as Seq
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
class Run:
    """Cells of one sequence that follow one another, all tokens or all of one media chunk. Each is a row of the batch.

    `position` is that of the first token, or that at which the media chunk begins. The last `n_outputs` rows yield
    logits, or vectors.
    """

    seq_id: int
    position: int
    content: Seq[int] | MediaRows
    n_outputs: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.content)

    @property
    def tokens(self) -> Seq[int]:
        """The content of a run of text."""
        assert not isinstance(self.content, MediaRows)
        return self.content


@dataclass(slots=True)
class Batch:
    """Runs in the order of their rows. All are computed with the LoRA set `lora`."""

    runs: list[Run] = field(default_factory=list)
    lora: LoraSet = ()
    n_rows: int = 0

    def __len__(self) -> int:
        """Number of rows."""
        return self.n_rows

    def add(self, run: Run) -> int:
        """Append a run. Returns the number of rows from then on: the run's are the last ones."""
        self.runs.append(run)
        self.n_rows += len(run)
        return self.n_rows
