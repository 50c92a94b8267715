"""The engine's Runner over libllama: its memory, its samplers, its decodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from functools import lru_cache
from typing import cast

from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context
from llamabox.bindings.sampling.sampler import ChainBuilder, ChainTemplate, RowSampler, SamplerChain
from llamabox.bindings.vocab import Vocab
from llamabox.bindings.weights.adapters import Lora, apply_loras
from llamabox.engine.batch import Batch
from llamabox.engine.grammar import TokenMask
from llamabox.engine.logprobs import Distribution, top_logprobs
from llamabox.engine.request import LoraSet, SamplingParams
from llamabox.engine.sampling import plan
from llamabox.engine.seams import Ask, RunnerFacts, Sampler
from llamabox.errors import NoRoom
from llamabox.machine.team import Team
from llamabox.workers.text.drafting.heads.cells import HeadCells
from llamabox.workers.text.media.rows import RowsOf, decode_media, has_media

MAX_KEPT = 16
"""Sampling parameters whose chain stays made."""


class LlamaMemory:
    """The engine's Memory over a context's."""

    def __init__(self, context: Context, heads: HeadCells | None = None, *, is_near: bool = True) -> None:
        """`heads` follow what changes here. `is_near`: see the seam."""
        self._context = context
        self._heads = heads
        self._memory = context.memory
        self._n_window = context.model.n_swa
        self._can_truncate = not (context.model.is_recurrent or context.model.is_hybrid)
        self._has_part = not self._can_truncate or (self._n_window > 0 and not context.params.swa_full)
        self._is_unified = context.kv_unified
        self._is_near = is_near

    @property
    def can_shift(self) -> bool:
        return self._memory.can_shift

    @property
    def can_truncate(self) -> bool:
        return self._can_truncate

    @property
    def n_rollback(self) -> int:
        return self._context.n_rs_seq

    @property
    def has_part(self) -> bool:
        return self._has_part

    @property
    def part_is_all(self) -> bool:
        return self._context.model.is_recurrent

    @property
    def is_unified(self) -> bool:
        return self._is_unified

    @property
    def is_near(self) -> bool:
        return self._is_near

    @property
    def state_is_all(self) -> bool:
        return self._heads is None

    @property
    def n_pool(self) -> int:
        return self._context.n_ctx if self._is_unified and not self._context.model.is_recurrent else 0

    @property
    def n_window(self) -> int:
        return self._n_window

    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        is_done = self._memory.seq_rm(seq_id, p0, p1)
        if is_done and self._heads is not None:
            if p1 < 0:
                self._heads.cut(seq_id, max(p0, 0))
            else:
                self._heads.moved(seq_id)
        return is_done

    def seq_cp(self, source: int, target: int) -> None:
        self._memory.seq_cp(source, target, -1, -1)
        if self._heads is not None:
            self._heads.copied(source, target)

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        self._memory.seq_add(seq_id, p0, p1, delta)
        if self._heads is not None:
            self._heads.moved(seq_id)

    def carry_out(self, seq_id: int) -> None:
        if self._heads is not None:
            self._heads.take()
        # libllama has no call for that alone; a decode begins with it, also one that then finds no room.
        position = self._memory.seq_pos_max(seq_id) + 1
        batch = NativeBatch(self._context.native, 1)
        batch.add(self._context.model.vocab.bos or 0, position, seq_id, wants_logits=False)
        try:
            self._context.decode(batch)
        except NoRoom:
            return
        finally:
            self._memory.seq_rm(seq_id, position, -1)

    def seq_detach(self, seq_id: int) -> bool:
        state = self._memory.state_get(seq_id)
        self._memory.seq_rm(seq_id, -1, -1)
        return self._memory.state_set(seq_id, state)

    def state_size(self, seq_id: int, *, part: bool = False) -> int:
        return self._memory.state_size(seq_id, part=part)

    def state_get(self, seq_id: int, into: memoryview | None = None, *, part: bool = False) -> memoryview:
        return self._memory.state_get(seq_id, into, part=part)

    def state_set(self, seq_id: int, state: bytes | memoryview, *, part: bool = False) -> bool:
        if self._heads is not None and not part:
            self._heads.moved(seq_id)
        return self._memory.state_set(seq_id, state, part=part)

    def seq_pos_min(self, seq_id: int) -> int:
        return self._memory.seq_pos_min(seq_id)

    def seq_pos_max(self, seq_id: int) -> int:
        return self._memory.seq_pos_max(seq_id)

    def clear(self) -> None:
        self._memory.clear(data=True)
        if self._heads is not None:
            self._heads.cleared()


class LlamaSampler:
    """The engine's Sampler over a native chain."""

    __slots__ = ("chain",)

    def __init__(self, chain: SamplerChain) -> None:
        self.chain = chain

    @property
    def takes_highest(self) -> bool:
        return self.chain.takes_highest

    def accept(self, token: int) -> None:
        self.chain.accept(token)

    def accept_all(self, tokens: Seq[int]) -> None:
        if self.chain.remembers:
            for token in tokens:
                self.chain.accept(token)

    def close(self) -> None:
        self.chain.close()


class LlamaSamplers:
    """The engine's SamplerSource: a chain with the prompt in its history, to copy for each sequence."""

    __slots__ = ("_template",)

    def __init__(self, template: ChainTemplate) -> None:
        self._template = template

    def start(self, seed: int) -> LlamaSampler:
        return LlamaSampler(self._template.copy(seed))


class SamplerMaker:
    """Makes what takes long of samplers, on any thread: the prompts of a request, and the next ones, share it."""

    def __init__(self, vocab: Vocab, n_ctx: int) -> None:
        """`n_ctx` is a slot's."""
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._made = lru_cache(MAX_KEPT)(self._make)

    def source(self, params: SamplingParams, prompt: Seq[int]) -> LlamaSamplers:
        """For the sequences behind `prompt`. Raises InvalidRequest for what libllama refuses."""
        template, n_history = self._made(params)
        return LlamaSamplers(template.after(prompt[max(0, len(prompt) - n_history) :]) if n_history else template)

    def _make(self, params: SamplingParams) -> tuple[ChainTemplate, int]:
        banned = self._vocab.suppress_tokens + (self._vocab.eog_tokens if params.ignore_eos else ())
        chosen = plan(params, seed=0, n_ctx=self._n_ctx, banned=banned)
        builder = ChainBuilder(self._vocab.native, self._vocab)
        for step in chosen.steps:
            builder.add(step.name, *step.arguments)
        return builder.template(), chosen.n_history


class LlamaRunner:
    """The engine's Runner over a context, on that context's thread. Owns neither the context nor the adapters.

    `loras` are those of the model, by id. A change of adapters costs the next decode some milliseconds.
    """

    def __init__(
        self,
        context: Context,
        loras: Seq[Lora] = (),
        *,
        tile: int = 1,
        mixes: bool = True,
        is_steady: bool = False,
        rows_of: RowsOf | None = None,
        heads: HeadCells | None = None,
        is_near: bool = True,
        has_spare_core: bool = False,
        before_decode: Callable[[], None] | None = None,
        team: Team | None = None,
    ) -> None:
        """`tile`, `mixes`, `is_steady` and `has_spare_core`: see RunnerFacts; `is_near`: see Memory.

        Without `rows_of` it takes no media.

        `heads` are told what is computed, and what changes in the memory. `before_decode` begins what other threads are
        to do while the interpreter is free. The `team` is how many threads a decode has; None: as many as the context.
        """
        self._context = context
        self._loras = loras
        self._applied: LoraSet = ()
        self._vocab = context.model.vocab
        self._batch = NativeBatch(context.native, context.n_batch)
        self._rows_of = rows_of
        self._rows = RowSampler(context)
        self._heads = heads
        self._before_decode = before_decode
        self._team = team
        self._memory = LlamaMemory(context, heads, is_near=is_near)
        self._has_streams = not context.kv_unified and heads is None
        self._rows_at: Mapping[int, int] | None = None  # see _lay
        self._eog = frozenset(self._vocab.eog_tokens)
        self._pieces: dict[int, bytes] = {}  # key: token * 2 + special
        self._facts = RunnerFacts(
            n_batch=context.n_batch,
            n_ubatch=context.n_ubatch,
            tile=tile,
            mixes=mixes,
            is_steady=is_steady,
            takes_media=rows_of is not None,
            adds_bos=self._vocab.add_bos,
            has_spare_core=has_spare_core,
            marks=frozenset(self._vocab.control_tokens) if self._memory.has_part else frozenset(),
        )

    @property
    def facts(self) -> RunnerFacts:
        return self._facts

    @property
    def memory(self) -> LlamaMemory:
        return self._memory

    def sampler_source(self, params: SamplingParams, prompt: Seq[int], n_ctx: int) -> LlamaSamplers:
        return SamplerMaker(self._vocab, n_ctx).source(params, prompt)

    def execute(self, batch: Batch) -> None:
        if batch.lora != self._applied:
            apply_loras(self._context, [(self._loras[adapter_id], scale) for adapter_id, scale in batch.lora])
            self._applied = batch.lora
        if self._heads is not None:
            self._heads.take()
        if has_media(batch):
            assert self._rows_of is not None, "this runner takes no media"
            self._rows_at = None
            self._begin(sum(map(len, batch.runs)))
            decode_media(self._context, batch.runs, self._rows_of)
            return
        self._rows_at = self._lay(batch)
        self._begin(self._batch.n_tokens)
        self._context.decode(self._batch)
        if self._heads is not None:
            self._heads.computed(batch.runs)

    def wait(self) -> None:
        self._context.synchronize()
        if self._team is not None:
            self._team.end()

    def _lay(self, batch: Batch) -> Mapping[int, int] | None:
        """Fill the native batch. Where the rows stand in it that have an output; None: where they stand in `batch`."""
        is_long = len(batch) > len(batch.runs) and self._has_streams
        if is_long and all(run.n_outputs <= 1 for run in batch.runs) and any(len(run) == 1 for run in batch.runs):
            return self._batch.lay_in_passes(batch.runs)
        self._batch.lay(batch.runs)
        return None

    def _row(self, row: int) -> int:
        """A row of the last batch as the context counts them."""
        return row if self._rows_at is None else self._rows_at[row]

    def _begin(self, n_rows: int) -> None:
        if self._team is not None:
            self._team.begin(n_rows)
        if self._before_decode is not None:
            self._before_decode()

    def sample(self, asks: Seq[Ask]) -> list[list[int]]:
        if not asks:
            return []
        chains = [cast(LlamaSampler, ask.sampler).chain for ask in asks]  # they came from LlamaSamplers
        has_masks = any(ask.masks for ask in asks)
        if any(ask.draft for ask in asks):
            masks = [ask.masks for ask in asks] if has_masks else None
            return self._rows.verify([ask.rows for ask in asks], chains, [ask.draft for ask in asks], masks)
        mask_by_row = [ask.masks[0] if ask.masks else None for ask in asks] if has_masks else None
        rows = [ask.rows.start for ask in asks]
        if self._rows_at is not None:
            rows = [self._rows_at[row] for row in rows]
        return [[token] for token in self._rows.sample(rows, chains, mask_by_row)]

    def logprobs(self, row: int, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
        return top_logprobs(self._context.logits(self._row(row)), token, n)  # sampling worked on a copy of the row

    def distribution(self, row: int, sampler: Sampler, mask: TokenMask | None) -> Distribution:
        return Distribution(*self._rows.distribution(self._row(row), cast(LlamaSampler, sampler).chain, mask))

    def piece(self, token: int, special: bool) -> bytes:
        key = 2 * token + special
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._pieces[key] = self._vocab.piece(token, special=special)
        return piece

    def is_eog(self, token: int) -> bool:
        return token in self._eog
