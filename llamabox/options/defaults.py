"""Prints defaults in the words of their options where a configuration holds them in another form."""

from __future__ import annotations

from llamabox.engine.request import RANDOM_SEED, SAMPLER_LETTERS

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


def mebibytes(n_bytes: int) -> str:
    """A size in bytes as MiB."""
    return str(n_bytes >> 20)


def bit(flag: bool) -> str:
    """A switch as 0 or 1."""
    return str(int(flag))


def seed(value: int) -> str:
    """A seed; -1 for one that is drawn."""
    return str(-1 if value == RANDOM_SEED else value)


def sampler_letters(names: tuple[str, ...]) -> str:
    """Samplers as --sampling-seq takes them."""
    letters = {name: letter for letter, name in SAMPLER_LETTERS.items()}
    return "".join(letters[name] for name in names)


def escaped(texts: tuple[str, ...]) -> str:
    r"""Texts with `\n` and the like as they are typed, apart by a blank."""
    typed = {character: f"\\{letter}" for letter, character in ESCAPES.items()}
    return " ".join("".join(typed.get(character, character) for character in text) for text in texts)


def unescape(text: str) -> str:
    r"""The text with `\n` and the like read as in C; other backslashes stay."""
    pieces: list[str] = []
    rest = iter(text)
    for character in rest:
        if character != "\\":
            pieces.append(character)
            continue
        following = next(rest, "")
        pieces.append(ESCAPES.get(following, "\\" + following))
    return "".join(pieces)
