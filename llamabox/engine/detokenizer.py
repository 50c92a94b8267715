"""Tokens to text: whole characters only, stop strings never shown, nothing lost at the end."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

from llamabox.engine.indentation import Indentation


@dataclass(slots=True)
class Piece:
    """What became sayable: `text` and the ids behind it. `stop_word` is set when a stop string has been completed.

    `is_cut`: the text was to go on with a line that is not indented; it ends before that.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    stop_word: str | None = None
    is_cut: bool = False


class Detokenizer:
    """The text of one sequence. The sum of all pieces, with `flush()` last, is the whole text.

    Bytes that are no UTF-8 become U+FFFD; a character that is still incomplete waits for its last byte. Text that may
    be the beginning of a stop string waits until it is or is not (contract A.5).
    """

    __slots__ = ("_decoder", "_held", "_indentation", "_stop", "_waiting", "has_new_line")

    def __init__(self, stop: tuple[str, ...] = (), n_indent: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(word for word in stop if word)
        self._held = ""  # text that may begin a stop string
        self._waiting: list[int] = []  # tokens whose bytes end inside a character
        self._indentation = Indentation(n_indent)
        self.has_new_line = False

    def push(self, token: int, piece: bytes) -> Piece | None:
        """Take the next token. None while its bytes end inside a character."""
        self._waiting.append(token)
        text = self._decoder.decode(piece)
        if not text and self._decoder.getstate()[0]:
            return None
        tokens, self._waiting = self._waiting, []
        if not self._stop:
            return self._say(text, tokens)
        return self._release(self._held + text, tokens)

    def flush(self) -> Piece:
        """The sequence has ended without a stop string: what was waiting is said now."""
        text = self._held + self._decoder.decode(b"", final=True)
        tokens, self._waiting = self._waiting, []
        self._held = ""
        return self._say(text, tokens)

    def _release(self, text: str, tokens: list[int]) -> Piece:
        at, word = min(((text.find(word), word) for word in self._stop if word in text), default=(-1, None))
        if word is not None:
            self._held = ""
            return self._say(text[:at], tokens, word)
        n_held = max(_overlap(text, word) for word in self._stop)
        said = len(text) - n_held
        self._held = text[said:]
        return self._say(text[:said], tokens)

    def _say(self, text: str, tokens: list[int], stop_word: str | None = None) -> Piece:
        end = self._indentation.find_end(text)
        if end is not None:
            text = text[:end]
        if "\n" in text:
            self.has_new_line = True
        return Piece(text, tokens, stop_word, end is not None)


def _overlap(text: str, word: str) -> int:
    """Length of the longest proper prefix of `word` that `text` ends with."""
    for n in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:n]):
            return n
    return 0
