"""Log-probabilities in replies: which tokens belong to what is said, and the entries that most APIs show."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from llamabox.engine.events import Delta, Likely, TokenProbs
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.http.json import dump_line


@dataclass(slots=True)
class TokenEntry:
    """A token's entry and where the token begins in the text, in characters."""

    offset: int
    probs: TokenProbs
    follows: bool = True  # else nothing stands before it, and it has no log-probability


Show = Callable[[Sequence[TokenEntry], Options], dict[str, Any]]
"""An API's form of a stretch of entries."""


class EntryQueue:
    """Holds one sequence's entries back until their text has been said.

    Text may be held back because a stop word could begin there, and its entries are held back with it: those of a stop
    word are never shown.
    """

    def __init__(self, start: int = 0) -> None:
        """Its text begins `start` characters behind the beginning."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # as the engine makes text of pieces
        self._n_decoded = self._n_said = start
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


def entries_of(choice: Choice, start: int = 0) -> list[TokenEntry]:
    """The entries of a whole answer, which begins `start` characters behind the beginning."""
    queue = EntryQueue(start)
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


class StreamedLogprobs:
    """The `logprobs` of each chunk of a stream, as `show` writes them."""

    def __init__(self, show: Show, options: Options, starts: Sequence[int] = ()) -> None:
        """`starts`: where the answer of each choice begins, in characters, if not at the beginning."""
        self._show = show
        self._options = options
        self._starts = starts
        self._queues: dict[int, EntryQueue] = {}  # by the choice's index

    def chunk(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """The `logprobs` of the chunk with the delta's text. Call it for each delta, also one without text."""
        queue = self._queues.get(index)
        if queue is None:
            queue = self._queues[index] = EntryQueue(self._starts[index] if self._starts else 0)
        said = queue.say(delta.text, delta.probs or ())
        return self._show(said, self._options) if said else None

    def end(self, choice: Choice) -> dict[str, Any] | None:
        """The `logprobs` of a choice's last chunk; None where nobody asked."""
        queue = self._queues.get(choice.index)
        rest = [] if queue is None else queue.rest()
        return self._show(rest, self._options) if rest else None


def whole_logprobs(show: Show, choice: Choice, options: Options) -> dict[str, Any] | None:
    """The `logprobs` of a plain reply's choice; None where nobody asked."""
    return None if options.n_top is None else show(entries_of(choice), options)


def _token_object(likely: Likely) -> dict[str, Any]:
    return {
        "id": likely.token,
        "token": token_text(likely),
        "bytes": list(likely.piece),
        "logprob": likely.logprob,
    }


def _prob_object(likely: Likely) -> dict[str, Any]:
    return {
        "id": likely.token,
        "token": token_text(likely),
        "bytes": list(likely.piece),
        "prob": math.exp(likely.logprob),
    }


def token_text(likely: Likely) -> str:
    """Bytes that are no whole character show as U+FFFD."""
    return likely.piece.decode("utf-8", "replace")
