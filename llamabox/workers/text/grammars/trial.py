"""The process that tries grammars out where they can do no harm, which llamabox.quarantine runs.

llguidance bounds what a mask costs, but not what compiling does: some grammars and schemas of a few kilobytes overflow
the stack, which ends the process (a chain of 20,000 `$ref`s), or take for ever (thirty `anyOf`s in an `allOf`). So each
goes through this process first, which may die of it.

A question is a grammar in llguidance's form, the answer why it cannot be used; it is empty where it can.
"""

from __future__ import annotations

import random
import re
import sys

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from llamabox.grammar.guidance import complaint, limits
from llamabox.quarantine import inside
from llamabox.quarantine.trial import Limits

LIMITS = Limits(cpu_seconds=4.0, memory=2 << 30, stack=2 << 20)
"""For one grammar. The stack is a quarter of what the thread has that compiles in the worker (helpers.STACK), since
what passes here must fit there for certain."""

N_CHOICES = 2048
"""Bytes to choose in one text of the grammar, with all that it forces between them: what is too deep for a compiler may
be so for the matcher as well, and a text may have more states than llguidance is let have."""

ONWARDS = b'",:]}1'
"""Bytes that are chosen first where they may come: each ends the thing that it stands in."""

WITHOUT_END = ("too many states", "ff_tokens")
"""llguidance's words for a grammar that forces more text than it follows."""

MAX_GIVEN = 30_000
"""Bytes that a text may begin with whatever the model says. All are tokenised anew in each step that takes some."""

TOO_MUCH_GIVEN = (
    "nothing that fits it ever ends, or too much of the text is given: constants and names may have some 30,000 "
    "characters together"
)

N_WALKS = 24
WALK = 96
"""Bytes of a text that is tried for dead ends."""

STRUCTURE = b'",:{}[]1'
"""Bytes that are mostly chosen where they may come: they lead from one property to the next."""

PREFERENCE = 0.75


TOKEN = re.compile(r"<\[(\^?)([0-9]+)\]>")
"""A token by its id."""

N_SPECIAL = 255
"""More kinds of control tokens than a form has."""


class Bytes:
    """A vocabulary of all bytes, an end, and tokens that no text is made of, as TokenizerWrapper wants it."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = tuple(range(256, 257 + N_SPECIAL))
    tokens = (*(bytes([i]) for i in range(256)), b"<end>", *(b"\xff%d" % i for i in range(N_SPECIAL)))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def try_out(grammar: str, tokenizer: LLTokenizer) -> str | None:
    """The reason why a grammar cannot be used, or None."""
    grammar = with_own_ids(grammar)
    if '"patternProperties"' in grammar and (text := dead_end(grammar, tokenizer)) is not None:
        return f"nothing can follow behind {text[-80:]}: a pattern of patternProperties fits listed names alone"
    reason = walk(LLMatcher(tokenizer, grammar, log_level=0, limits=limits()))
    if reason is not None and any(sign in reason for sign in WITHOUT_END):
        return TOO_MUCH_GIVEN
    return reason


def with_own_ids(grammar: str) -> str:
    """The grammar with tokens of Bytes in the place of the model's, whose ids may be larger or those of bytes here."""
    ids: dict[str, int] = {}
    return TOKEN.sub(lambda told: f"<[{told[1]}{257 + ids.setdefault(told[2], len(ids)) % N_SPECIAL}]>", grammar)


def walk(matcher: LLMatcher) -> str | None:
    """Follow a grammar along a short text of it. Why it cannot be followed; None where it can, as far as was tried."""
    for i in range(N_CHOICES):
        if (reason := complaint(matcher)) is not None or matcher.is_stopped():
            return reason
        if forced := matcher.compute_ff_tokens():
            if i == 0 and len(forced) > MAX_GIVEN:
                return TOO_MUCH_GIVEN
            matcher.consume_tokens(forced)
        if complaint(matcher) is None and not matcher.is_stopped():
            mask = int.from_bytes(matcher.compute_bitmask(), "little") & ~(1 << Bytes.eos_token_id)
            if mask == 0 or matcher.is_accepting():
                break
            onwards = (byte for byte in ONWARDS if mask >> byte & 1)
            matcher.consume_token(next(onwards, (mask & -mask).bit_length() - 1))
    return complaint(matcher)


def dead_end(grammar: str, tokenizer: LLTokenizer) -> str | None:
    """A beginning of a text that nothing can follow, or None where none was met.

    llguidance allows another property behind one while there is a pattern for its name, also where that fits nothing
    but names which are listed. So texts of brackets, commas and the names are tried, at random but each time alike.
    """
    first = LLMatcher(tokenizer, grammar, log_level=0, limits=limits())
    for seed in range(N_WALKS):
        matcher, chance, text = first.deep_copy(), random.Random(seed), bytearray()
        while len(text) < WALK:
            mask = int.from_bytes(matcher.compute_bitmask(), "little")
            if complaint(matcher) is not None:
                return bytes(text).decode(errors="replace")
            allowed = [byte for byte in range(256) if mask >> byte & 1]
            if matcher.is_stopped() or not allowed:
                break
            structure = [byte for byte in allowed if byte in STRUCTURE]
            text.append(chance.choice(structure if structure and chance.random() < PREFERENCE else allowed))
            matcher.consume_token(text[-1])
    return None


def prepare() -> inside.Answer:
    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
    return lambda grammar: (try_out(grammar.decode(), tokenizer) or "").encode()


if __name__ == "__main__":
    inside.serve(sys.argv[1:], prepare)
