"""A model's vocabulary as llguidance wants it."""

from __future__ import annotations

from llguidance import LLTokenizer

from llamabox.bindings.vocab import Vocab
from llamabox.errors import NotSupported

SPECIAL = b"\xff"
"""llguidance's mark of a token that no text is made of."""


def guidance_pieces(vocab: Vocab) -> list[bytes]:
    """What each token says, behind SPECIAL where it is no text. Takes a part of a second.

    Raises NotSupported for a model without a vocabulary.
    """
    lib = vocab.native.lib
    if vocab.type == lib.LLAMA_VOCAB_TYPE_NONE:
        raise NotSupported("the model has no vocabulary: its answers cannot follow a grammar")
    if not vocab.eog_tokens:
        raise NotSupported("the model has no token that ends a text: its answers cannot follow a grammar")
    no_text = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN | lib.LLAMA_TOKEN_ATTR_UNUSED
    pieces: list[bytes] = []
    for token in range(vocab.n_tokens):
        if vocab.attr(token) & no_text or not (piece := vocab.piece(token, special=False)):
            piece = SPECIAL + vocab.piece(token, special=True)
        pieces.append(piece)
    return pieces


def guidance_tokenizer(vocab: Vocab, pieces: list[bytes] | None = None) -> LLTokenizer:
    """Takes a part of a second. Valid as long as the model is open, since forced text goes through its vocabulary.

    `pieces` are its guidance_pieces(), if they are known. Raises NotSupported for a model without a vocabulary.
    """
    ffi = vocab.native.ffi
    tokenizer: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
        tokens=guidance_pieces(vocab) if pieces is None else pieces,
        vocab_ptr=int(ffi.cast("intptr_t", vocab.handle)),
        tokenize_fptr=vocab.remembered.address,
        eos_token=list(vocab.eog_tokens),
        slices=[],
    )
    # In two parts, since each keeps the interpreter locked, which the engine's thread wants between two decodes.
    whole: LLTokenizer = tokenizer.with_slices(LLTokenizer.general_slices())
    return whole
