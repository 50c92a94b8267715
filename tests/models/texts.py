"""Texts of many scripts and of chosen lengths, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable

# In two things libllama's WordPiece is not BERT's, so they are left out: it drops vowel signs that are letters' marks
# (Devanagari), and it takes words of more than 100 characters apart where BERT has one unknown token.
PIECES = (
    "The quick brown fox jumps over the lazy dog.",
    "Stock prices fell sharply after the earnings report,",
    "crème brûlée à la carte; naïve façade",
    "Übergrößenträger, Straße & Weiß",
    "Привет, как дела?",
    "def add(a, b):\n    return a + b\n",
    "3.14159 + 2 = 5.14159 (50% off!)",
    "user@example.com",
    "don't won't it's",
    "日本の首都は東京です。",
    "ラーメンを食べたい",
    "我爱北京天安门，天安门上太阳升",
    "안녕하세요 세계",
    "😀",
    "🎉🎊",
    "👍🏽",
    "🇫🇷 ❤️",
    "مرحبا بالعالم",
    "שלום עולם",
    "สวัสดี",
    "\u00a0\u3000\t\n",
    "ﬁne ½ ² №",
    "antidisestablishmentarianism",
    "“quoted” — dashes… «guillemets»",
    "[cls] [SEP-1]",
    "C++ <html> {json: [1, 2]} #hash $100 ^~`|",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "𠀀𪜀",
)
WORDS = ("book", "car", "猫", "日", "7")
"""Of one token each."""


def varied_texts(n_tokens: Callable[[str], int], count: int = 100, longest: int = 500, seed: int = 1) -> list[str]:
    """`count` texts of 1 to `longest` tokens, most of them short; `n_tokens` counts them."""
    drawn = random.Random(seed)
    sizes = {piece: n_tokens(piece) for piece in (*PIECES, *WORDS)}
    texts = [_fill(round(longest ** (i / (count - 1))), sizes, drawn) for i in range(count)]
    assert [n_tokens(text) for text in texts] == [round(longest ** (i / (count - 1))) for i in range(count)]
    return texts


def _fill(wanted: int, sizes: dict[str, int], drawn: random.Random) -> str:
    """A text of exactly `wanted` tokens: pieces while they fit, then single words. `sizes`: tokens of each."""
    chosen: list[str] = []
    n_left, n_refused = wanted, 0
    while n_left:
        piece = drawn.choice(PIECES if n_refused < 20 else WORDS)
        if sizes[piece] <= n_left:
            chosen.append(piece)
            n_left -= sizes[piece]
        else:
            n_refused += 1
    return " ".join(chosen)
