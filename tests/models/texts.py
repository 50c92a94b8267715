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
    return [_fill(round(longest ** (i / (count - 1))), n_tokens, drawn) for i in range(count)]


def _fill(wanted: int, n_tokens: Callable[[str], int], drawn: random.Random) -> str:
    """A text of exactly `wanted` tokens: pieces while they fit, then single words."""
    text = ""
    n_refused = 0
    while n_tokens(text) < wanted:
        more = f"{text} {drawn.choice(PIECES if n_refused < 20 else WORDS)}".lstrip(" ")
        if n_tokens(more) <= wanted:
            text = more
        else:
            n_refused += 1
    return text
