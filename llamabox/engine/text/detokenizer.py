"""Tokens to text: whole characters only, stop strings never shown, nothing lost at the end."""

from __future__ import annotations

import codecs
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from llamabox.engine.text.indentation import Indentation
from llamabox.engine.text.stop_strings import StopStrings
from llamabox.marks import REPLACED, mark


@dataclass(slots=True)
class Piece:
    """Text that may be sent, and the ids of its tokens. `stop_word` is the stop string that ended it, if one did.

    `is_cut`: a line that is not indented came next, and the text ends before it.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    stop_word: str | None = None
    is_cut: bool = False


class Detokenizer:
    """The text of one sequence. The sum of all pieces, with `flush()` last, is the whole text.

    Bytes that are no UTF-8 become U+FFFD; a character that is still incomplete waits for its last byte. Text that may
    be the beginning of a stop string waits until it is or is not.
    """

    __slots__ = (
        "_decoder",
        "_held",
        "_indentation",
        "_marks",
        "_n_least",
        "_state",
        "_stop",
        "_waiting",
        "has_new_line",
    )

    def __init__(
        self, stop: StopStrings | None = None, n_indent: int = 0, marks: Seq[int] = (), *, n_least: int = 0
    ) -> None:
        """`marks` are tokens that stand in the text as marks (llamabox.marks), whatever their bytes are.

        In the text of the first `n_least` tokens no stop string begins.
        """
        self._n_least = n_least
        self._marks = {token: mark(i) for i, token in enumerate(marks)}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop or None
        self._state = 0  # of the automaton of stop strings, after the text so far
        self._held = ""  # text that may begin a stop string
        self._waiting: list[int] = []  # tokens whose bytes end inside a character
        self._indentation = Indentation(n_indent) if n_indent > 0 else None
        self.has_new_line = False

    def push(self, token: int, piece: bytes) -> Piece | None:
        """Take the next token. None while its bytes end inside a character."""
        self._waiting.append(token)
        self._n_least -= 1
        text = self._text(token, piece)
        if text is None:
            return None
        tokens, self._waiting = self._waiting, []
        if self._stop is None or self._n_least >= 0:
            return self._say(text, tokens)
        return self._release(self._stop, text, tokens)

    def push_all(self, tokens: Seq[int], pieces: Seq[bytes]) -> Piece | None:
        """Take tokens that come at once, in one piece. None where a stop string may end among them, or a line cut the
        text: then nothing has changed, and each must be pushed by itself.
        """
        if self._indentation is not None or (self._stop is not None and self._n_least > 0):
            return None
        before = self._decoder.getstate()
        text, n_whole = self._texts(tokens, pieces)
        if self._stop is not None and self._stop.read(self._state, text)[1] is not None:
            self._decoder.setstate(before)
            return None
        self._n_least -= len(tokens)
        whole = [*self._waiting, *tokens[:n_whole]] if n_whole else []
        self._waiting = [*([] if n_whole else self._waiting), *tokens[n_whole:]]
        return self._say(text, whole) if self._stop is None else self._release(self._stop, text, whole)

    def _texts(self, tokens: Seq[int], pieces: Seq[bytes]) -> tuple[str, int]:
        """What tokens add to the text, and how many of them say whole characters."""
        if not self._marks and not self._decoder.getstate()[0] and (joined := b"".join(pieces)).isascii():
            return joined.decode(), len(tokens)
        texts, n_whole = [], 0
        for n, (token, piece) in enumerate(zip(tokens, pieces, strict=True), 1):
            text = self._text(token, piece)
            if text is not None:
                texts.append(text)
                n_whole = n
        return "".join(texts), n_whole

    def _text(self, token: int, piece: bytes) -> str | None:
        """What a token adds to the text. None while its bytes end inside a character."""
        text = self._decoder.decode(piece) if token not in self._marks else self._mark(token)
        if not text and self._decoder.getstate()[0]:
            return None
        if self._marks and token not in self._marks and not text.isascii():
            text = text.translate(REPLACED)
        return text

    def _mark(self, token: int) -> str:
        """A token's mark, behind what is left of a character that it cut off."""
        cut = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return cut + self._marks[token]

    def flush(self, last: int | None = None) -> Piece:
        """The sequence has ended without a stop string: say all that was held back.

        A `last` token counts, and has no text.
        """
        if last is not None:
            self._waiting.append(last)
        text = self._held + self._decoder.decode(b"", final=True)
        tokens, self._waiting = self._waiting, []
        self._held = ""
        return self._say(text, tokens)

    def _release(self, stop: StopStrings, new: str, tokens: list[int]) -> Piece:
        text, n_before = self._held + new, len(self._held)
        self._state, found = stop.read(self._state, new)
        if found is not None:
            start, end = n_before + found[0], n_before + found[1]
            self._held = ""
            return self._say(text[:start], tokens, text[start:end])
        said = len(text) - stop.n_held(self._state)
        self._held = text[said:]
        return self._say(text[:said], tokens)

    def _say(self, text: str, tokens: list[int], stop_word: str | None = None) -> Piece:
        end = None if self._indentation is None else self._indentation.find_end(text)
        if end is not None:
            text = text[:end]
        if "\n" in text:
            self.has_new_line = True
        return Piece(text, tokens, stop_word, end is not None)
