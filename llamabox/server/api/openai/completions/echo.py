"""A prompt in front of its answer (`echo`), with what its tokens were worth where that is asked for."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import groupby

from llamabox.checks import wrong
from llamabox.engine.events import TokenProbs
from llamabox.engine.request import PromptText
from llamabox.server.fields.prompt import RawPrompt
from llamabox.server.generation.logprobs import TokenEntry
from llamabox.server.generation.prompts import has_media
from llamabox.server.hosted.seams import TextService
from llamabox.wire.questions import Spell

PIECES = 4096
"""Tokens whose pieces the worker is asked for in one question."""


def check_echo(prompts: Sequence[RawPrompt]) -> None:
    """Raises InvalidRequest for a prompt that cannot be repeated."""
    if any(has_media(prompt) for prompt in prompts):
        raise wrong("echo", "cannot be true for a prompt with pictures or sound, which have no text; leave it out")


async def echo_text(client: TextService, prompt: PromptText) -> str:
    """The prompt as the client wrote it, with the texts of its token ids, special ones as well."""
    texts: list[str] = []
    for is_text, run in groupby(prompt, lambda part: isinstance(part, str)):
        if is_text:
            texts += map(str, run)
            continue
        tokens = [part for part in run if isinstance(part, int)]
        pieces: list[bytes] = []
        for start in range(0, len(tokens), PIECES):
            pieces += (await client.ask(Spell(tokens[start : start + PIECES]))).pieces
        texts.append(b"".join(pieces).decode("utf-8", "replace"))
    return "".join(texts)


class Echo:
    """Says the text of one prompt along with its tokens, as they are told."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0  # characters that were said
        self._n_tokens = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def say(self, probs: Sequence[TokenProbs]) -> tuple[str, list[TokenEntry]]:
        """The text of the prompt's next tokens, and their entries.

        A BOS that the client did not write, and the blank that some vocabularies put before a text, are not in it.
        """
        begin = self._at
        entries: list[TokenEntry] = []
        for one in probs:
            entries.append(TokenEntry(self._at, one, follows=self._n_tokens > 0))
            self._n_tokens += 1
            piece = self._decoder.decode(one.chosen.piece)
            if self._text.startswith(piece, self._at):
                self._at += len(piece)
            elif not self._at and self._text.startswith(piece.removeprefix(" ")):
                self._at += len(piece) - 1
        return self._text[begin : self._at], entries

    def rest(self) -> str:
        """The text that has not been said."""
        begin, self._at = self._at, len(self._text)
        return self._text[begin:]
