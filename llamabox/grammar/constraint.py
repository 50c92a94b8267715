"""Constraints over llguidance: which tokens a JSON schema or a GBNF grammar lets come next.

llguidance needs nothing of libllama but the vocabulary, which comes in ready made (bindings.sampling.guidance).
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from llamabox.engine.grammar import TokenMask, walk
from llamabox.errors import InvalidRequest
from llamabox.grammar.guidance import complaint, limits


class GuidedConstraint:
    """A Constraint over a matcher of its own. One thread at a time; each computes what it asks for.

    `ends` has a bit for each token that ends a generation.
    """

    def __init__(self, matcher: LLMatcher, ends: TokenMask) -> None:
        self._matcher = matcher
        self._ends = ends
        self._mask: TokenMask = np.zeros_like(ends)
        self._has_mask = False  # of the present state
        self._forced: list[int] | None = None  # in an earlier state; since then `_n_taken` of them were accepted
        self._n_taken = 0
        self._is_complete = False
        self._ahead: list[TokenMask | None] = []

    @property
    def is_complete(self) -> bool:
        return self._is_complete or bool(self._matcher.is_stopped())

    def forced(self, n_most: int) -> list[int]:
        if self._forced is None:
            self._forced, self._n_taken = self._matcher.compute_ff_tokens(), 0
            self._check()
        return self._forced[self._n_taken : self._n_taken + n_most]

    def accept(self, token: int) -> None:
        self._has_mask = False
        if self._forced is not None:
            # Finding a list of forced tokens takes as long as it is long, so it is used to its end.
            self._n_taken += 1
            if self._n_taken >= len(self._forced) or self._forced[self._n_taken - 1] != token:
                self._forced = None
        self._matcher.consume_token(token)
        self._check()

    def prepare(self) -> None:
        """Compute the mask. What is wrong with the grammar is raised by `mask`."""
        if self._has_mask:
            return
        self._has_mask = True
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if not self._matcher.is_accepting():  # "any token but this one" is no way to end
            np.bitwise_and(self._mask, ~self._ends, out=self._mask)

    def mask(self) -> TokenMask:
        self.prepare()
        self._check()
        if not (self._mask & ~self._ends).any():
            if not self._mask.any():
                raise InvalidRequest("the grammar leaves nothing to say")
            self._is_complete = True
        return self._mask

    def n_allowed(self, tokens: Seq[int]) -> int:
        ends = self._ends
        n_text = next((i for i, token in enumerate(tokens) if ends[token >> 5] >> (token & 31) & 1), len(tokens))
        return int(self._matcher.validate_tokens(list(tokens[:n_text])))

    def mask_behind(self, tokens: Seq[int]) -> TokenMask | None:
        ahead = self._copy()
        for token in tokens:
            ahead.accept(token)
        mask = ahead.mask()
        return None if ahead.is_complete else mask

    def places(self, draft: Seq[int], *, forces: bool) -> list[TokenMask | None]:
        return walk(self._copy(), draft, forces=forces, masks=False)

    def look_ahead(self, draft: Seq[int], *, forces: bool) -> None:
        self._ahead = walk(self._copy(), draft, forces=forces, masks=True)

    def masks_ahead(self) -> list[TokenMask | None]:
        return self._ahead

    def _copy(self) -> GuidedConstraint:
        copied = GuidedConstraint(self._matcher.deep_copy(), self._ends)
        copied._mask, copied._has_mask = self._mask.copy(), self._has_mask
        copied._forced, copied._n_taken, copied._is_complete = self._forced, self._n_taken, self._is_complete
        return copied

    def _check(self) -> None:
        reason = complaint(self._matcher)
        if reason is not None:
            raise InvalidRequest(f"the grammar cannot be followed: {reason}")


class GuidedGrammar:
    """A Grammar over llguidance, in its own form (grammar.guidance)."""

    def __init__(self, text: str, tokenizer: LLTokenizer) -> None:
        """Compiles it, which may take long and drops the interpreter lock. Raises InvalidRequest."""
        self._matcher = LLMatcher(tokenizer, text, log_level=0, limits=limits())
        self._ends: TokenMask = np.zeros((tokenizer.vocab_size + 31) // 32, np.uint32)
        for token in tokenizer.eos_tokens:
            self._ends[token >> 5] |= np.uint32(1 << (token & 31))
        reason = complaint(self._matcher)
        if reason is not None:
            raise InvalidRequest(reason)
        self.start().mask()  # some grammars show only here that nothing fits them

    @property
    def is_ready(self) -> bool:
        return True

    def start(self) -> GuidedConstraint:
        return GuidedConstraint(self._matcher.deep_copy(), self._ends)
