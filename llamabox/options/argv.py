"""Takes the words of a command line apart: the option that each names, its value, and the unknown ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamabox.errors import OptionsError
from llamabox.log.masking import DASHES, MASK, is_secret, masked
from llamabox.options import OPTIONS, Option
from llamabox.options.refused import CHOOSING, REFUSED


@dataclass(frozen=True, slots=True)
class Use:
    """One use of an option. `words` is its value; empty for a switch, and where the value was left out."""

    flag: str
    option: Option
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandLine:
    """All uses of options in order, a warning for each unknown option, and those of CHOOSING, which are no options."""

    uses: tuple[Use, ...]
    warnings: tuple[str, ...]
    choosing: tuple[str, ...]


GUARDED_WORDS = frozenset({
    "allow", "allowed", "apikey", "auth", "cert", "certificate", "cors", "https", "key", "keys", "origin",
    "origins", "password", "secret", "ssl", "tls",
})  # fmt: skip
"""An unknown option with one of these words in its name is taken for one that protects the server."""

COMMON_WORDS = frozenset({"", "file", "rpc", "server"})
"""Words in the names of options that protect, which other options have as well."""

NEAR = 0.5
"""Similarity from which on a known name is worth a hint."""

CLOSE = 0.7
"""Similarity from which on an unknown name is a slip of the nearest one, though they share no word."""

OUR_VARIABLE = re.compile(r"LLAMA_ARG_|LLAMABOX_(?:ARG_)?|LLAMA_")
"""Beginnings of the names of variables that could be meant for us."""


def read_words(argv: Sequence[str]) -> CommandLine:
    """Raises OptionsError for a missing value, for one that a switch does not take, for an option that is REFUSED, and
    for an unknown one that resembles one that protects: a server must not start open because of a slip."""
    by_flag = {flag: option for option in OPTIONS for flag in option.flags + option.hidden}
    uses: list[Use] = []
    warnings: list[str] = []
    choosing: list[str] = []
    position = 0
    while position < len(argv):
        flag, joined, value = argv[position].partition("=")
        position += 1
        option = by_flag.get(flag)
        if flag in REFUSED:
            raise OptionsError(f"{flag}: {REFUSED[flag]}")
        if flag in CHOOSING:
            choosing.append(flag)
            continue
        if option is None:
            if _looks_like_a_flag(flag, joined, by_flag):
                warnings.append(_unknown(flag, by_flag))
            continue
        if option.parse is None:
            if joined:
                raise OptionsError(f"{flag} takes no value: write {flag} alone")
            uses.append(Use(flag, option))
            continue
        given = [value] if joined else []
        words = given + _following(argv, position, option.n_words - len(given), given)
        if option.words and not joined and (not words or words[0].lower() not in option.words):
            uses.append(Use(flag, option))
            continue
        if not words:
            raise OptionsError(f"{flag} needs a value: {flag} {option.metavar}")
        if not joined and words[0] in by_flag:
            raise OptionsError(
                f"{flag} needs a value: {flag} {option.metavar}; {words[0]} is an option "
                f"(if it is meant as the value, write {flag}={words[0]})"
            )
        position += len(words) - len(given)
        uses.append(Use(flag, option, tuple(words)))
    return CommandLine(tuple(uses), tuple(warnings), tuple(choosing))


def check_variables(environ: Mapping[str, str]) -> None:
    """Raises OptionsError for a variable that no option reads and that could have been meant to protect."""
    read = {option.env for option in OPTIONS}
    by_flag = {flag: option for option in OPTIONS for flag in option.flags}
    for name, text in environ.items():
        if name in read or not text or not (found := OUR_VARIABLE.match(name)):
            continue
        guard = _guard(name[found.end() :], by_flag)
        if guard:
            env = by_flag[guard].env
            known = f"{guard} ({env})" if env else guard
            raise OptionsError(f"no option reads the environment variable {name}; {_ends_the_start(known)}")


def shown(flag: str, text: str, join: str = " ") -> str:
    """A flag or variable with its value for an error message; a long text is cut, a secret is not shown."""
    if is_secret(flag):
        return f"{flag}{join}{MASK}"
    return f"{flag}{join}{text if len(text) <= 60 else text[:57] + '...'}"


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _following(argv: Sequence[str], position: int, n_words: int, given: Sequence[str]) -> list[str]:
    """Up to `n_words` words. A value's first may begin with a dash; a later one may only if it is a number."""
    words = list(argv[position : position + n_words])
    for i, word in enumerate(words):
        if (given or i) and word.startswith("-") and not is_number(word):
            return words[:i]
    return words


def _looks_like_a_flag(word: str, joined: str, known: Mapping[str, Option]) -> bool:
    """Whether a word is meant as an option. Editors lengthen its dashes, and `api-key=secret` has lost them."""
    if word.startswith(DASHES):
        return not is_number(word)
    option = known.get("--" + word)
    return option is not None and (bool(joined) or option.protects)


def _unknown(flag: str, known: Mapping[str, Option]) -> str:
    """A warning. Raises OptionsError where the option could have been meant to protect."""
    if guard := _guard(flag, known):
        raise OptionsError(f"unknown option {masked(flag)}; {_ends_the_start(guard)}")
    nearest = _nearest(_bare(flag), {_bare(one): one for one in known}, NEAR)
    hint = f"; the nearest known one is {nearest}" if nearest else ""
    return f"Unknown argument: {masked(flag)}{hint}"


def _guard(flag: str, known: Mapping[str, Option]) -> str | None:
    """The option that protects for which an unknown flag, or a variable's name, may have been meant."""
    name = _bare(flag)
    words = set(re.split(r"[-.]", name))
    guards = {_bare(one): one for one in known if known[one].protects}
    if words & GUARDED_WORDS:
        return _nearest(name, guards, 0.0)
    nearest = _nearest(name, {_bare(one): one for one in known}, NEAR)
    is_meant = _nearest(name, guards, CLOSE) or words & set(_bare(nearest or "").split("-")) - COMMON_WORDS
    return nearest if nearest in guards.values() and is_meant else None


def _bare(flag: str) -> str:
    """A flag's name as others may write it: without dashes before it, in any case."""
    return flag.strip("".join(DASHES)).lower().replace("_", "-")


def _ends_the_start(nearest: str) -> str:
    return (
        f"the nearest known one is {nearest}, which protects the server, so nothing is started without it: "
        "correct the name, or leave it out"
    )


def _nearest(name: str, spellings: Mapping[str, str], cutoff: float) -> str | None:
    found = difflib.get_close_matches(name, list[str](spellings), n=1, cutoff=cutoff)
    return spellings[found[0]] if found else None
