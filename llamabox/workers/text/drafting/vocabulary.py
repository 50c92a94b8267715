"""Whether a draft model has the vocabulary of the model that it drafts for."""

from __future__ import annotations

from llamabox.bindings.vocab import Vocab

MAX_DIFFERENCE = 128
"""Tokens that one of two vocabularies may have more: they are reserved, and files are padded with them."""

FIRST_COMPARED = 5
"""Token ids below are special ones, which models name differently."""


def difference(target: Vocab, draft: Vocab) -> str | None:
    """What keeps `draft`'s tokens from standing for those of `target`, as a clause; None where they do.

    The rules are those of llama.cpp's speculation.
    """
    if draft.type != target.type:
        return f"its vocabulary is of type {draft.type}, the model's of type {target.type}"
    for name, adds_here, here, adds_there, there in (
        ("BOS", draft.add_bos, draft.bos, target.add_bos, target.bos),
        ("EOS", draft.add_eos, draft.eos, target.add_eos, target.eos),
    ):
        if adds_here != adds_there:
            return f"it {_adds(adds_here)} {name} to a text, and the model {_adds(adds_there)} it"
        if adds_here and here != there:
            return f"its {name} is token {here}, the model's is token {there}"
    if abs(draft.n_tokens - target.n_tokens) > MAX_DIFFERENCE:
        return f"its vocabulary has {draft.n_tokens} tokens, the model's {target.n_tokens}"
    token = _first_difference(target, draft)
    if token is not None:
        return f"its token {token} is {draft.text(token)!r}, the model's is {target.text(token)!r}"
    return None


def _adds(adds: bool) -> str:
    return "adds" if adds else "does not add"


def _first_difference(target: Vocab, draft: Vocab) -> int | None:
    """The first token that is not the same text in both."""
    text, string = target.native.lib.llama_vocab_get_text, target.native.ffi.string
    one, other = target.handle, draft.handle
    n_shared = min(target.n_tokens, draft.n_tokens)
    differing = (
        token for token in range(FIRST_COMPARED, n_shared) if string(text(one, token)) != string(text(other, token))
    )
    return next(differing, None)
