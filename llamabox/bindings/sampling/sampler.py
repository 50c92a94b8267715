"""Sampler chains, and sampling all rows of a step in one native call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llamabox.bindings.context import Context
from llamabox.bindings.ffi import Native, Owned
from llamabox.bindings.sampling.shortlist import ALL, ShortlistKind, Wide, shortlist, takes_highest, wide
from llamabox.bindings.vocab import Vocab, encode
from llamabox.errors import InvalidRequest

BAD_ROW = -1
"""Instead of a token: the row has a NaN, or its chain left nothing to choose from."""

INFILL_PIECE = 512
"""Bytes of the buffer in which libllama's infill sampler compares pieces."""

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""

NOTHING = (np.empty(0, np.int32), np.empty(0))
"""A distribution without any token."""


Mask = NDArray[np.uint32]
"""One bit for each token: whether it may come."""


class SamplerChain(Owned):
    """Owns a llama_sampler chain: random numbers, penalty history. One thread at a time.

    n_best: the number of a row's highest logits that decide the token; `RowSampler` shows it no others. 1: the highest
    is the token, whatever the chain. ALL: it must see every logit, and `wide` says how it begins.

    takes_highest: the token is the one whose logit is the highest behind the chain's biases, if it has any.

    remembers: some sampler of it takes note of the tokens that it accepts.
    """

    def __init__(
        self,
        native: Native,
        handle: Any,
        *,
        n_best: int = ALL,
        wide: Wide | None = None,
        takes_highest: bool = False,
        remembers: bool = True,
    ) -> None:
        super().__init__(handle, native.lib.llama_sampler_free, "sampler chain")
        self._native = native
        self.remembers = remembers
        self.wide = wide
        self.n_best = n_best
        self.takes_highest = takes_highest
        self.beginning = native.ffi.NULL  # `wide`, for C
        if wide is not None:
            self.beginning = native.ffi.new("struct lb_wide *", astuple(wide))

    @property
    def names(self) -> list[str]:
        """libllama's names of the samplers, in order."""
        lib = self._native.lib
        samplers = [
            lib.llama_sampler_chain_get(self.handle, index) for index in range(lib.llama_sampler_chain_n(self.handle))
        ]
        return [self._native.text(lib.llama_sampler_name(sampler)) or "" for sampler in samplers]

    def accept(self, token: int) -> None:
        """Take a token into the penalty history. Must be one of the vocabulary."""
        handle = self.handle
        if self.remembers:
            self._native.lib.llama_sampler_accept(handle, token)

    def clone(self) -> SamplerChain:
        """A copy with the same history and random state, to go its own way."""
        copied = self._native.lib.llama_sampler_clone(self.handle)
        return SamplerChain(
            self._native,
            copied,
            n_best=self.n_best,
            wide=self.wide,
            takes_highest=self.takes_highest,
            remembers=self.remembers,
        )


FORGETFUL = frozenset(
    {"logit_bias", "top_k", "top_p", "min_p", "typical", "top_n_sigma", "xtc", "temp", "temp_ext", "dist", "greedy"}
)
"""Samplers to which it is the same which tokens came before."""

SEED_AT = {"dist": 0, "xtc": 3, "mirostat": 0, "mirostat_v2": 0, "adaptive_p": 2}
"""The place of the seed among the arguments of those samplers that draw."""


class ChainBuilder:
    """Adds samplers in the order of the calls. `add` takes libllama's name and its arguments in libllama's order:

    logit_bias(pairs of token and bias) · penalties(last_n, repeat, frequency, presence, of newlines too) ·
    dry(multiplier, base, allowed_length, last_n, breakers) · top_n_sigma(n) · top_k(k) · typical(p, min_keep) ·
    top_p(p, min_keep) · min_p(p, min_keep) · xtc(probability, threshold, min_keep, seed) · temp(t) ·
    temp_ext(t, delta, exponent) · infill() · grammar(text, root), and last one of
    dist(seed) · greedy() · mirostat(seed, tau, eta, m) · mirostat_v2(seed, tau, eta) · adaptive_p(target, decay, seed)

    Seeds are what they are: none stands for a random one. Raises InvalidRequest for what libllama refuses.
    """

    def __init__(self, native: Native, vocab: Vocab) -> None:
        self._native = native
        self._vocab = vocab
        params = native.lib.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = native.lib.llama_sampler_chain_init(params)
        self._steps: list[tuple[str, tuple[Any, ...]]] = []
        self._made: dict[str, Callable[..., Any]] = {
            "logit_bias": self._logit_bias,
            "penalties": self._penalties,
            "dry": self._dry,
            "infill": self._infill,
            "grammar": self._grammar,
            "mirostat": self._mirostat,
            "dist": self._dist,
        }

    def add(self, name: str, *arguments: object) -> Self:
        make = self._made.get(name) or getattr(self._native.lib, f"llama_sampler_init_{name}")
        return self._append(make(*arguments), name, arguments)

    def build(self) -> SamplerChain:
        """The finished chain. The builder must not be used again."""
        n_best = shortlist(self._steps)
        return self._finish(n_best, wide(self._steps) if n_best == ALL else None)

    def template(self) -> ChainTemplate:
        """The finished chain, to be copied. The builder must not be used again."""
        return ChainTemplate(self._native, self._vocab, self.build(), self._steps)

    def copy(self, template: SamplerChain, steps: Sequence[tuple[str, tuple[Any, ...]]], seed: int) -> SamplerChain:
        """The chain of `steps`, of which `template` is one, with another seed."""
        lib = self._native.lib
        for i, (name, arguments) in enumerate(steps):
            at = SEED_AT.get(name)
            if at is None:
                self._append(lib.llama_sampler_clone(lib.llama_sampler_chain_get(template.handle, i)), name, arguments)
            else:
                self.add(name, *arguments[:at], seed, *arguments[at + 1 :])
        return self._finish(template.n_best, template.wide)

    def __del__(self) -> None:
        if self._chain is not None:
            self._native.lib.llama_sampler_free(self._chain)

    def _append(self, sampler: Any, name: str, arguments: tuple[Any, ...]) -> Self:
        if sampler == self._native.ffi.NULL:
            raise InvalidRequest(f"libllama refuses the sampler {name} with {arguments}")
        self._native.lib.llama_sampler_chain_add(self._chain, sampler)
        self._steps.append((name, arguments))
        return self

    def _finish(self, n_best: int, wide: Wide | None) -> SamplerChain:
        chain, self._chain = self._chain, None
        return SamplerChain(
            self._native,
            chain,
            n_best=n_best,
            wide=wide,
            takes_highest=takes_highest(self._steps),
            remembers=not FORGETFUL.issuperset(name for name, _ in self._steps),
        )

    def _logit_bias(self, pairs: Sequence[tuple[int, float]]) -> Any:
        biases = [(self._vocab.check(token), bias) for token, bias in pairs]
        array = self._native.ffi.new("llama_logit_bias[]", biases)
        return self._native.lib.llama_sampler_init_logit_bias(self._vocab.n_tokens, len(biases), array)

    def _penalties(self, last_n: int, repeat: float, frequency: float, presence: float, newlines: bool = True) -> Any:
        lib, newline = self._native.lib, self._vocab.nl
        takes_size = len(self._native.ffi.typeof(lib.llama_sampler_init_penalties).args) == 5  # older ones do not
        size = (self._vocab.n_tokens,) if takes_size else ()
        sampler = lib.llama_sampler_init_penalties(*size, last_n, repeat, frequency, presence)
        if newlines or newline is None or sampler == self._native.ffi.NULL:
            return sampler
        return lib.lb_sampler_init_except(sampler, newline)

    def _dry(self, multiplier: float, base: float, allowed_length: int, last_n: int, breakers: Sequence[str]) -> Any:
        table = self._vocab.breakers.table(tuple(map(encode, breakers)))
        return self._native.lib.lb_sampler_init_dry(table, multiplier, base, allowed_length, last_n)

    def _infill(self) -> Any:
        """libllama asserts on a model without an end token, and throws at a piece that is longer than its buffer."""
        if self._vocab.eot is None and self._vocab.eos is None:
            raise InvalidRequest("the sampler infill needs a model with a token that ends a text")
        if self._vocab.longest_piece > INFILL_PIECE:
            raise InvalidRequest(f"the sampler infill needs a model without tokens of more than {INFILL_PIECE} bytes")
        return self._native.lib.llama_sampler_init_infill(self._vocab.handle)

    def _grammar(self, text: str, root: str) -> Any:
        return self._native.lib.llama_sampler_init_grammar(self._vocab.handle, encode(text), encode(root))

    def _mirostat(self, seed: int, tau: float, eta: float, m: int) -> Any:
        return self._native.lib.llama_sampler_init_mirostat(self._vocab.n_tokens, seed, tau, eta, m)

    def _dist(self, seed: int) -> Any:
        beginning = wide([*self._steps, ("dist", (seed,))])
        lib = self._native.lib
        if beginning is not None and beginning.kind is ShortlistKind.DRAW:
            return lib.lb_sampler_init_dist(seed)
        return lib.llama_sampler_init_dist(seed)


class ChainTemplate:
    """A chain to copy: what takes long to make is in it already. It does not change, and any thread may copy it."""

    def __init__(
        self, native: Native, vocab: Vocab, chain: SamplerChain, steps: Sequence[tuple[str, tuple[Any, ...]]]
    ) -> None:
        self._native = native
        self._vocab = vocab
        self._chain = chain
        self._steps = steps

    def after(self, tokens: Sequence[int]) -> ChainTemplate:
        """One of its own with these tokens of the vocabulary in its penalty history."""
        chain = self._chain.clone()
        for token in tokens:
            chain.accept(token)
        return ChainTemplate(self._native, self._vocab, chain, self._steps)

    def copy(self, seed: int) -> SamplerChain:
        """A chain of its own, that draws from this seed."""
        return ChainBuilder(self._native, self._vocab).copy(self._chain, self._steps, seed)

    def __del__(self) -> None:
        self._chain.close()


class RowSampler:
    """Samples many rows of a context's last batch in one call without the GIL. Lives on the context's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sample = context.native.lib.lb_sample_rows
        self._grow(32)

    def _grow(self, capacity: int) -> None:
        ffi = self._context.native.ffi
        self._capacity = capacity
        self._first = np.zeros(capacity, np.int32)
        self._n_rows = np.ones(capacity, np.int32)
        self._n_best = np.zeros(capacity, np.int32)
        self._expected = np.zeros(capacity, np.int32)
        self._tokens = np.zeros(capacity, np.int32)
        self._n_tokens = np.zeros(capacity, np.int32)
        self._chains = ffi.new("struct llama_sampler *[]", capacity)
        self._masks = ffi.new("uint32_t *[]", capacity)
        self._wide = ffi.new("struct lb_wide *[]", capacity)
        self._first_c, self._n_rows_c, self._n_best_c, self._n_tokens_c = (
            ffi.cast("int32_t *", numbers.ctypes.data)
            for numbers in (self._first, self._n_rows, self._n_best, self._n_tokens)
        )
        self._expected_c, self._tokens_c = (
            ffi.cast("llama_token *", tokens.ctypes.data) for tokens in (self._expected, self._tokens)
        )

    def sample(
        self, rows: Sequence[int], chains: Sequence[SamplerChain], masks: Sequence[Mask | None] | None = None
    ) -> list[int]:
        """Sample rows[i] of the last batch with chains[i], which accepts its token. BAD_ROW where there is none.

        rows must be ones for which the batch asked for logits. A chain may come up once only. masks[i] has a bit for
        each token of the vocabulary that may come, token t in bit t & 31 of word t >> 5; None: all may.
        """
        count = len(rows)
        if count > self._capacity:
            self._grow(2 * count)
        self._first[:count] = rows
        self._n_rows[:count] = 1
        self._call(chains, masks)
        tokens: list[int] = self._tokens[:count].tolist()
        assert -2 not in tokens, "a row was sampled for which the batch asked for no logits"
        return tokens

    def verify(
        self,
        rows: Sequence[range],
        chains: Sequence[SamplerChain],
        drafts: Sequence[Sequence[int]],
        masks: Sequence[Sequence[Mask]] | None = None,
    ) -> list[list[int]]:
        """Sample the rows[i] of the last batch with chains[i], one after the other, as long as drafts[i] has its token.

        drafts[i] has a token less than rows[i] has rows: the last row, if it comes to that, gives what follows the
        draft. Each list has one token or more, and ends with BAD_ROW where a row has none. masks[i] has a mask for each
        of rows[i], or is empty: all tokens may come.
        """
        n_rows = [len(each) for each in rows]
        n_all = sum(n_rows)
        if n_all > self._capacity:
            self._grow(2 * n_all)
        self._first[: len(rows)] = [each.start for each in rows]
        self._n_rows[: len(rows)] = n_rows
        self._expected[:n_all] = [token for draft in drafts for token in (*draft, BAD_ROW)]
        flat: list[Mask | None] | None = None
        if masks is not None:
            flat = []
            for n, some in zip(n_rows, masks, strict=True):
                flat += some or [None] * n
        self._call(chains, flat)
        tokens = iter(self._tokens[:n_all].tolist())
        found = [list(islice(tokens, n))[:n_taken] for n, n_taken in zip(n_rows, self._n_tokens.tolist(), strict=False)]
        assert not any(-2 in some for some in found), "a row was sampled for which the batch asked for no logits"
        return found

    def _call(self, chains: Sequence[SamplerChain], masks: Sequence[Mask | None] | None) -> None:
        """Sample with the rows, and the tokens expected of them, that are noted. `masks`: one for each row."""
        ffi, count = self._context.native.ffi, len(chains)
        self._n_best[:count] = [chain.n_best for chain in chains]
        self._chains[0:count] = [chain.handle for chain in chains]
        self._wide[0:count] = [chain.beginning for chain in chains]
        masks_c = ffi.NULL
        if masks is not None:
            self._masks[0 : len(masks)] = [self._pointer(mask) for mask in masks]
            masks_c = ffi.cast("const uint32_t **", self._masks)
        self._sample(
            self._context.handle,
            count,
            self._first_c,
            self._n_rows_c,
            self._chains,
            self._n_best_c,
            ffi.cast("const struct lb_wide **", self._wide),
            masks_c,
            self._expected_c,
            self._tokens_c,
            self._n_tokens_c,
        )

    def _pointer(self, mask: Mask | None) -> Any:
        ffi = self._context.native.ffi
        if mask is None:
            return ffi.NULL
        assert 32 * len(mask) >= self._context.n_vocab
        return ffi.from_buffer("uint32_t[]", mask)  # in a quarter of the time that mask.ctypes takes

    def distribution(
        self, row: int, chain: SamplerChain, mask: Mask | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The tokens that `sample` would choose from, and the probability of each, in no order.

        The chain stays as it is. Empty for a row that holds a NaN or +infinity, which libllama must not see.
        """
        logits = self._context.logits(row)
        ids = np.arange(len(logits))
        if mask is not None:
            allowed = np.unpackbits(mask.view(np.uint8), count=len(logits), bitorder="little")
            ids = np.flatnonzero(allowed)
            logits = logits[ids]
        if not len(ids) or not (logits < np.inf).all():
            return NOTHING
        candidates = np.zeros(len(ids), CANDIDATE)
        candidates["id"] = ids
        candidates["logit"] = logits
        ffi, lib = self._context.native.ffi, self._context.native.lib
        array = ffi.new("llama_token_data_array *")
        array.data = ffi.cast("llama_token_data *", candidates.ctypes.data)
        array.size, array.selected = len(candidates), -1
        with chain.clone() as copy:  # with the same random state, so that XTC draws what it is about to draw
            lib.llama_sampler_apply(copy.handle, array)
            if copy.names[-1] == "greedy":
                selected = [array.data[array.selected].id] if array.selected >= 0 else []
                return np.array(selected, np.int32), np.ones(len(selected))
        left = np.frombuffer(ffi.buffer(array.data, array.size * CANDIDATE.itemsize), CANDIDATE)
        return _softmax(left["id"], left["logit"].astype(np.float64))


def _softmax(ids: NDArray[np.int32], logits: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Probabilities of the logits, without tokens whose probability is 0."""
    if not len(logits) or logits.max() == -np.inf:
        return NOTHING
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    able = probabilities > 0
    return ids[able], probabilities[able]
