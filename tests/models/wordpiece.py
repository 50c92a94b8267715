"""BERT's own tokeniser (lower case, accents stripped), written from its description: an oracle for the library's.

Text is cleaned, split at white space, punctuation and each Chinese character; a word becomes the longest pieces from
its left that the vocabulary has, or [UNK] as a whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
MAX_WORD = 100
"""Characters; a longer word is unknown."""


class WordPiece:
    """Tokens of one vocabulary, in which "##" marks what continues a word."""

    def __init__(self, vocab: list[str]) -> None:
        self._ids = {token: number for number, token in enumerate(vocab)}

    def encode(self, text: str) -> list[int]:
        """With [CLS] and [SEP] around it."""
        return [self._ids["[CLS]"], *self.content(text), self._ids["[SEP]"]]

    def content(self, text: str) -> list[int]:
        """Without them."""
        return [token for word in _words(text) for token in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word) <= MAX_WORD:
            for end in range(len(word), start, -1):
                piece = self._ids.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    break
            else:
                return [self._ids["[UNK]"]]
            found.append(piece)
            start = end
        return found or [self._ids["[UNK]"]]


def _words(text: str) -> Iterator[str]:
    plain = unicodedata.normalize("NFD", "".join(map(_cleaned, text)).lower())
    word = ""
    for char in plain:
        if unicodedata.category(char) == "Mn":
            continue
        if char.isspace() or _stands_alone(char):
            if word:
                yield word
            word = ""
            if not char.isspace():
                yield char
        else:
            word += char
    if word:
        yield word


def _cleaned(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    return "" if char in "\0\ufffd" or unicodedata.category(char)[0] == "C" else char


def _stands_alone(char: str) -> bool:
    ascii_mark = char.isascii() and not char.isalnum() and char > " "
    chinese = any(low <= ord(char) <= high for low, high in CHINESE)
    return ascii_mark or chinese or unicodedata.category(char)[0] == "P"
