"""A static lookup cache of texts: `python -m llamabox.workers.text.drafting.lookup_build MODEL FILE PREFIX TEXT…`.

A process of its own, because the command loads no native code, and a model's tokens are known to libllama alone. Writes
a line to stderr; exits with 1 where something is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from llamabox.bindings import backend
from llamabox.bindings.ffi import load
from llamabox.bindings.model import LoadMode, Model, ModelParams
from llamabox.engine.drafting.lookup.building import MAX_VOCAB, Builder
from llamabox.errors import LlamaboxError, OptionsError
from llamabox.workers.text.drafting.lookup import write_file

PIECE = 1 << 20
"""Bytes that are tokenised at once, up to the next line's end."""

LONGEST_LINE = 1 << 16


def main(model: str, out: str, prefix: str, texts: Sequence[str]) -> int:
    """Returns the exit status."""
    try:
        print(build(model, Path(out), prefix, texts), file=sys.stderr)
    except LlamaboxError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


def build(model: str, out: Path, prefix: str, texts: Sequence[str]) -> str:
    """Write the file; a sentence about it. Raises LlamaboxError with what is wrong, and then no file is written."""
    native = load(prefix or None)
    backend.start(native)
    builder, n_tokens = Builder(), 0
    with Model.load(native, model, ModelParams(vocab_only=True, load_mode=LoadMode.AUTO)) as loaded:
        vocab = loaded.vocab
        if vocab.n_tokens > MAX_VOCAB:
            raise OptionsError(f"{model} has {vocab.n_tokens} tokens; up to {MAX_VOCAB} can be counted")
        for text in texts:
            try:
                with open(text, "rb") as file:
                    for piece in pieces(file):
                        tokens = vocab.tokenize(piece, add_special=False, parse_special=False)
                        n_tokens += len(tokens)
                        builder.add(tokens)
            except OSError as error:
                raise OptionsError(f"the text {text} cannot be read: {error.strerror}") from error
            builder.end_text()
    if not (n_grams := builder.n_grams):
        raise OptionsError(
            f"there is nothing to count: {len(texts)} texts have {n_tokens} tokens, too few for a 2-gram"
        )
    try:
        write_file(out, builder.file(), 0o644)
    except OSError as error:
        raise OptionsError(f"{out} cannot be written: {error.strerror}") from error
    return f"{n_grams} 2-grams of {n_tokens} tokens in {out}"


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file in pieces that end with a line, where lines are of a usual length."""
    while piece := file.read(PIECE):
        yield piece if piece.endswith(b"\n") else piece + file.readline(LONGEST_LINE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
