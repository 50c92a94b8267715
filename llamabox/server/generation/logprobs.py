"""Log-probabilities as the routes show them: llama.cpp's entries, OpenAI's chat, OpenAI's legacy arrays."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox.engine.events import Delta, Likely, TokenProbs
from llamabox.server.fields.request import Dialect, Options
from llamabox.server.generation.choice import Choice
from llamabox.server.http.json import dump_line


@dataclass(slots=True)
class TokenEntry:
    """A token's entry and where the token begins in the text, in characters."""

    offset: int
    probs: TokenProbs


class EntryQueue:
    """Holds one sequence's entries back until their text has been said.

    Text may be held back because a stop word could begin there, and its entries are held back with it: those of a stop
    word are never shown.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # as the engine makes text of pieces
        self._n_decoded = 0
        self._n_said = 0
        self._waiting: list[TokenEntry] = []

    def say(self, text: str, probs: Sequence[TokenProbs]) -> list[TokenEntry]:
        """Take more text and entries; give back the entries of the tokens that begin in the text said by now."""
        self._n_said += len(text)
        for one in probs:
            self._waiting.append(TokenEntry(self._n_decoded, one))
            self._n_decoded += len(self._decoder.decode(one.chosen.piece))
        n_said = sum(one.offset < self._n_said for one in self._waiting)
        said, self._waiting = self._waiting[:n_said], self._waiting[n_said:]
        return said

    def rest(self) -> list[TokenEntry]:
        """The entries left at the end: tokens without text, like the one that ended it, and none of text cut off."""
        return [] if self._n_said < self._n_decoded else self._waiting


def entries_of(choice: Choice) -> list[TokenEntry]:
    """The entries of a whole text."""
    queue = EntryQueue()
    return queue.say(choice.text, choice.probs) + queue.rest()


def entries(probs: Sequence[TokenProbs], options: Options) -> list[orjson.Fragment]:
    """`completion_probabilities`, and the `content` of chat's logprobs: an object for each token.

    Probabilities after the samplers go by other names, `prob` and `top_probs`, and are no logarithms. Each is JSON at
    once: as objects the likeliest tokens of a long answer are a gigabyte, which the collector walks again and again.
    """
    make, top = (_prob_object, "top_probs") if options.params.post_sampling_probs else (_token_object, "top_logprobs")
    return [
        orjson.Fragment(dump_line({**make(one.chosen), top: [make(likely) for likely in one.top[: options.n_top]]}))
        for one in probs
    ]


def openai_logprobs(dialect: Dialect, found: Sequence[TokenEntry], options: Options) -> dict[str, Any]:
    """A choice's `logprobs`."""
    if dialect is Dialect.CHAT:
        return {"content": entries([one.probs for one in found], options)}
    return {
        "tokens": [_text(one.probs.chosen) for one in found],
        "token_logprobs": [one.probs.chosen.logprob for one in found],
        "top_logprobs": [_by_text(one.probs, options.n_top) for one in found],
        "text_offset": [one.offset for one in found],
    }


def whole_logprobs(dialect: Dialect, choice: Choice, options: Options) -> dict[str, Any] | None:
    """The `logprobs` of a plain reply's choice; None where nobody asked."""
    return None if options.n_top is None else openai_logprobs(dialect, entries_of(choice), options)


class StreamedLogprobs:
    """The `logprobs` of each chunk of a stream; None everywhere where nobody asked."""

    def __init__(self, dialect: Dialect, options: Options) -> None:
        self._dialect = dialect
        self._options = options
        self._queues: dict[int, EntryQueue] = {}  # by the choice's index

    def chunk(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """The `logprobs` of the chunk with the delta's text. Call it for each delta, also one without text."""
        if self._options.n_top is None:
            return None
        said = self._queues.setdefault(index, EntryQueue()).say(delta.text, delta.probs or ())
        return openai_logprobs(self._dialect, said, self._options) if said else None

    def end(self, choice: Choice) -> dict[str, Any] | None:
        """The `logprobs` of a choice's last chunk."""
        queue = self._queues.get(choice.index)
        if self._options.n_top is None or queue is None:
            return None
        rest = queue.rest()
        return openai_logprobs(self._dialect, rest, self._options) if rest else None


def _token_object(likely: Likely) -> dict[str, Any]:
    return {
        "id": likely.token,
        "token": _text(likely),
        "bytes": list(likely.piece),
        "logprob": likely.logprob,
    }


def _prob_object(likely: Likely) -> dict[str, Any]:
    return {
        "id": likely.token,
        "token": _text(likely),
        "bytes": list(likely.piece),
        "prob": math.exp(likely.logprob),
    }


def _by_text(probs: TokenProbs, n_top: int | None) -> dict[str, float]:
    """The likeliest tokens by their text, and always the sampled one. Of two with the same text the likelier counts."""
    found: dict[str, float] = {}
    for likely in (*probs.top[:n_top], probs.chosen):
        found.setdefault(_text(likely), likely.logprob)
    return found


def _text(likely: Likely) -> str:
    """Bytes that are no whole character show as U+FFFD."""
    return likely.piece.decode("utf-8", "replace")
