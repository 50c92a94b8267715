"""Constraints over llguidance: which tokens a JSON schema or a GBNF grammar lets come next.

llguidance needs nothing of libllama but the vocabulary, which comes in ready made (bindings.sampling.guidance).
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Seq

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from llamabox.engine.grammar import TokenMask, walk
from llamabox.errors import InvalidRequest
from llamabox.grammar.free_text import FreeText, FreeTextState
from llamabox.grammar.guidance import complaint, limits

WORD = re.compile(rb'[^\x00-\x1f"\\<|{}\[\]]+')
"""What a token says that seldom ends a string, whatever its grammar: what is forced begins where strings end."""


class EndTokens:
    """The tokens that end a generation, and a mask that has them alone. Shared, and never changed."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self.tokens = frozenset(tokenizer.eos_tokens)
        self.mask: TokenMask = np.zeros((tokenizer.vocab_size + 31) // 32, np.uint32)
        for token in self.tokens:
            self.mask[token >> 5] |= np.uint32(1 << (token & 31))


class Words:
    """Tokens behind which a grammar leaves a choice, where one may be said among most others: as far as was seen.

    One that says no more than words is thought to do so at first, any other once it was seen to. A wrong guess costs
    its text a step, so of a grammar with two of them nothing is thought any more: its strings end of themselves, at a
    length. All constraints of a grammar share it, on any threads.
    """

    def __init__(self, pieces: Seq[bytes]) -> None:
        """`pieces` are what tokens say."""
        self._pieces = pieces
        self._are_free: dict[int, bool] = {}
        self._n_missed = 0  # wrong guesses

    def is_free_behind(self, token: int) -> bool:
        if self._n_missed > 1:
            return False
        known = self._are_free.get(token)
        if known is None:
            known = WORD.fullmatch(self._pieces[token]) is not None
            if known:
                self._are_free[token] = True
        return known

    def note(self, token: int, *, is_free: bool) -> None:
        """What was seen of it. Where something was forced behind it once, that may come again."""
        if not is_free:
            self._n_missed += self._are_free.get(token, False)
            self._are_free[token] = False
        else:
            self._are_free.setdefault(token, True)


class GuidedConstraint:
    """A Constraint over a matcher of its own. One thread at a time; each computes what it asks for.

    `text` follows what comes before the first call, where most tokens need no look at the matcher. Without `words` no
    token is thought to leave a choice behind it.
    """

    def __init__(
        self, matcher: LLMatcher, ends: EndTokens, text: FreeTextState | None = None, words: Words | None = None
    ) -> None:
        self._matcher = matcher
        self._ends = ends
        self._words = words
        self._word = -1  # the token by which it has moved on last, if most others could have come in its place
        self._text = text
        self._mask: TokenMask = np.zeros_like(ends.mask)
        self._has_mask = False  # of the present state
        self._may_go_on = False  # the mask has a token that does not end the text
        self._is_wide = False  # and has many
        self._forced: list[int] | None = None  # in an earlier state; since then `_n_taken` of them were accepted
        self._n_taken = 0
        self._is_complete = False
        self._ahead: list[TokenMask | None] = []

    @property
    def is_complete(self) -> bool:
        if self._is_complete:
            return True
        if self._has_mask and self._may_go_on:  # at every token: the matcher need not be asked
            return False
        if not self._matcher.is_stopped():
            return False
        self._check()  # it also stops where it cannot be followed
        return True

    def forced(self, n_most: int) -> list[int]:
        if self._forced is None:
            self._forced, self._n_taken = self._matcher.compute_ff_tokens(), 0
            if self._words is not None and self._word >= 0:
                self._words.note(self._word, is_free=not self._forced)
            if not self._forced:
                if self._matcher.is_error():
                    self._check()
                return self._forced
        return self._forced[self._n_taken : self._n_taken + n_most]

    def accept(self, token: int) -> None:
        if self._text is not None and self._text.plain[token]:
            return
        if not self._matcher.consume_token(token):
            self._check()
        self._moved((token,))

    def is_free_behind(self, token: int) -> bool:
        return self._is_wide and self._has_mask and self._words is not None and self._words.is_free_behind(token)

    def accept_beside(self, token: int) -> None:
        self.accept(token)
        self.prepare_choice()

    def accept_all(self, tokens: Seq[int]) -> None:
        if self._text is not None and not self._text.is_over:
            for token in tokens:
                self.accept(token)
            return
        if not self._matcher.consume_tokens(list(tokens)):
            self._check()
        self._moved(tokens)

    def try_accept(self, token: int) -> bool:
        if self._text is not None and self._text.plain[token]:
            return True
        if token in self._ends.tokens or not self._matcher.try_consume_tokens([token]):
            return False
        self._moved((token,))
        return True

    @property
    def is_prepared(self) -> bool:
        return self._has_mask

    def prepare(self, *, at_once: bool = False) -> None:
        """Compute the mask. What is wrong with the grammar is raised by `mask`."""
        if self._has_mask:
            return
        self._has_mask = True
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        texts = self._mask & ~self._ends.mask
        n_words = int(np.count_nonzero(texts))
        self._may_go_on = n_words > 0
        self._is_wide = 2 * n_words > len(texts)
        if not self._matcher.is_accepting():  # "any token but this one" is no way to end
            self._mask[:] = texts

    def mask(self) -> TokenMask:
        self.prepare()
        if not self._may_go_on:
            self._check()
            if not self._mask.any():
                raise InvalidRequest("the grammar leaves nothing to say")
            self._is_complete = True
        return self._mask

    def prepare_choice(self) -> None:
        if not self.forced(1):
            self.prepare()

    def choice(self) -> TokenMask | None:
        if self.forced(1):
            return None
        if self._has_mask and self._may_go_on:
            return self._mask
        mask = self.mask()
        return None if self.is_complete else mask

    def n_allowed(self, tokens: Seq[int]) -> int:
        n_text = next((i for i, token in enumerate(tokens) if token in self._ends.tokens), len(tokens))
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
        text = None if self._text is None else self._text.copy()
        copied = GuidedConstraint(self._matcher.deep_copy(), self._ends, text, self._words)
        copied._mask, copied._has_mask, copied._may_go_on = self._mask.copy(), self._has_mask, self._may_go_on
        copied._is_wide = self._is_wide
        copied._forced, copied._n_taken, copied._is_complete = self._forced, self._n_taken, self._is_complete
        return copied

    def _moved(self, tokens: Seq[int]) -> None:
        """The matcher has moved on by these tokens."""
        self._word = tokens[0] if self._has_mask and self._is_wide and len(tokens) == 1 else -1
        self._has_mask = False
        if not self._forced:
            self._forced = None
        else:
            # Finding a list of forced tokens takes as long as it is long, so it is used to its end.
            n_before = self._n_taken
            self._n_taken += len(tokens)
            if self._n_taken >= len(self._forced) or self._forced[n_before : self._n_taken] != list(tokens):
                self._forced = None
        if self._text is not None:
            for token in tokens:
                self._text.take(token)

    def _check(self) -> None:
        reason = complaint(self._matcher)
        if reason is not None:
            raise InvalidRequest(f"the grammar cannot be followed: {reason}")


class GuidedGrammar:
    """A Grammar over llguidance, in its own form (grammar.guidance)."""

    def __init__(
        self, text: str, tokenizer: LLTokenizer, free: FreeText | None = None, pieces: Seq[bytes] = ()
    ) -> None:
        """Compiles it, which may take long and drops the interpreter lock. Raises InvalidRequest.

        `free`: it allows any text before a call, whose opening that has. `pieces` are what tokens say; without them no
        token is thought to leave a choice behind it.
        """
        self._matcher = LLMatcher(tokenizer, text, log_level=0, limits=limits())
        self._ends = EndTokens(tokenizer)
        reason = complaint(self._matcher)
        if reason is not None:
            raise InvalidRequest(reason)
        self._words = Words(pieces) if pieces else None
        self._free: FreeText | None = None
        mask = self.start().mask()  # some grammars show only here that nothing fits them
        if free is not None:
            self._free = free.within(mask & ~self._ends.mask)

    @property
    def is_ready(self) -> bool:
        return True

    def start(self) -> GuidedConstraint:
        text = None if self._free is None else FreeTextState(self._free)
        return GuidedConstraint(self._matcher.deep_copy(), self._ends, text, self._words)
