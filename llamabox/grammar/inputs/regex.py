"""A regular expression for texts as one for these texts within a JSON string.

The words are those of the Rust regex crate, which llguidance reads. Each item of an expression stands for one character
or a set of them; it becomes the same set without the characters that a string cannot have, or the escapes of these. As
no escape is the beginning of another, the new expression matches the escaped text of what the old one matches, and
nothing else.
"""

from __future__ import annotations

import re

from llamabox.errors import InvalidRequest
from llamabox.grammar.inputs.escapes import PLAIN, SPECIAL, escapes

ALL = SPECIAL
LINE_FEED = frozenset({10})
SPACE = frozenset({9, 10, 11, 12, 13})
PUNCTUATION = frozenset(map(ord, '"\\'))
CONTROL = SPECIAL - PUNCTUATION
NONE: frozenset[int] = frozenset()

PERL = {"d": NONE, "w": NONE, "s": SPACE}

POSIX = {
    **dict.fromkeys(("alnum", "alpha", "digit", "lower", "upper", "word", "xdigit"), NONE),
    "blank": frozenset({9}),
    "space": SPACE,
    "cntrl": CONTROL,
    "ascii": ALL,
    **dict.fromkeys(("graph", "print", "punct"), PUNCTUATION),
}

PROPERTIES = {
    **dict.fromkeys(("l", "lu", "ll", "lt", "lm", "lo", "m", "mn", "mc", "me", "n", "nd", "nl", "no"), NONE),
    **dict.fromkeys(
        ("s", "sm", "sc", "sk", "so", "z", "zs", "zl", "zp", "cf", "co", "pd", "ps", "pe", "pi", "pf"), NONE
    ),
    **dict.fromkeys(("letter", "mark", "number", "symbol", "separator", "alphabetic", "lowercase", "uppercase"), NONE),
    **dict.fromkeys(("latin", "greek", "cyrillic", "han", "hiragana", "katakana", "hangul", "arabic", "hebrew"), NONE),
    **dict.fromkeys(("p", "po", "punctuation"), PUNCTUATION),
    **dict.fromkeys(("c", "cc", "control", "other"), CONTROL),
    **dict.fromkeys(("whitespace", "space"), SPACE),
    **dict.fromkeys(("any", "ascii"), ALL),
}
"""The special characters of Unicode's properties, by their names in small letters without blanks."""

LETTER_ESCAPES = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
CODES = {"x": 2, "u": 4, "U": 8}
"""Digits of an escape by number, where no braces stand around them."""

GROUP = re.compile(r"\(\?(?:P?<\w+>|[=!]|<[=!]|(?P<flags>[a-zA-Z]*(?:-[a-zA-Z]+)?)(?P<inside>[:)]))|\(")
ASSERTIONS = frozenset("bBAzZ<>")
TEXT_FLAGS = frozenset("isuU")
"""Flags that can be kept: the others read line breaks or blanks of the expression itself in another way."""


def in_json_string(pattern: str, flags: str = "") -> str:
    """The expression over escaped text. `flags` are those of the whole. Raises InvalidRequest."""
    return _Rewriting(pattern, flags).run()


class _Rewriting:
    def __init__(self, pattern: str, flags: str) -> None:
        self._text = pattern
        self._at = 0
        self._dot_is_all = [False]  # for each group that is open
        self._set_flags(flags)

    def run(self) -> str:
        made: list[str] = []
        while self._at < len(self._text):
            made.append(self._item())
        return "".join(made)

    def _item(self) -> str:
        begin, character = self._at, self._text[self._at]
        match character:
            case "(":
                return self._group()
            case ")":
                if len(self._dot_is_all) > 1:
                    self._dot_is_all.pop()
            case "[":
                return self._set(begin, self._class())
            case "\\":
                found = self._escape()
                if isinstance(found, frozenset):
                    return self._set(begin, found)
                return _literal(found, self._text[begin : self._at])
            case ".":
                self._at += 1
                return _either(PLAIN, ALL if self._dot_is_all[-1] else ALL - LINE_FEED)
            case _:
                self._at += 1
                return _literal(ord(character), character)
        self._at += 1
        return character

    def _set(self, begin: int, special: frozenset[int]) -> str:
        return _either(f"[{self._text[begin : self._at]}&&{PLAIN}]", special)

    def _group(self) -> str:
        found = GROUP.match(self._text, self._at)
        if found is None:
            raise self._error("a group cannot begin so")
        self._at = found.end()
        if found["inside"] != ")":
            self._dot_is_all.append(self._dot_is_all[-1])
        self._set_flags(found["flags"] or "")
        return found[0]

    def _set_flags(self, flags: str) -> None:
        on, _, off = flags.partition("-")
        unknown = sorted(set(on + off) - TEXT_FLAGS) or sorted(set(off) & {"u"})
        if unknown:
            raise self._error(f"the flag {unknown[0]} cannot be followed; i and s can,")
        if "s" in on + off:
            self._dot_is_all[-1] = "s" in on

    def _escape(self) -> frozenset[int] | int | None:
        """The special characters of a class, the code of a character, or None for what stands for no character."""
        kind = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if kind.lower() in PERL:
            return _inverted(PERL[kind.lower()], kind.isupper())
        if kind in "pP" and kind:
            name = re.compile(r"\{(\^?)([^}]*)\}|()(\w)").match(self._text, self._at)
            known = re.sub(r"[\s_\-]", "", name[2] or name[4] or "").lower() if name else ""
            known = re.sub(r"^(generalcategory|gc|script|sc)=", "", known)
            if name is None or known not in PROPERTIES:
                raise self._error(f"there is no property {known or '?'} that could be followed")
            self._at = name.end()
            return _inverted(PROPERTIES[known], (kind == "P") != bool(name[1]))
        if kind in LETTER_ESCAPES:
            return LETTER_ESCAPES[kind]
        if kind in CODES:
            digits = re.compile(rf"\{{([0-9a-fA-F]+)\}}|([0-9a-fA-F]{{{CODES[kind]}}})").match(self._text, self._at)
            if digits is None:
                raise self._error("an escape has no digits")
            self._at = digits.end()
            return int(digits[1] or digits[2], 16)
        if kind in ASSERTIONS and kind:
            return None  # for the compiler to refuse
        if not kind or kind.isalnum():
            raise self._error(f"there is no escape \\{kind}")
        return ord(kind)

    def _class(self) -> frozenset[int]:
        """The special characters of the class that begins here."""
        begin = self._at
        self._at += 1
        is_negated = self._take("^")
        left: frozenset[int] | None = None
        found: frozenset[int] = NONE
        first = True
        while not self._take("]") or first:
            if first and self._text[self._at - 1] == "]":
                found |= self._range(ord("]"))
            elif self._at >= len(self._text):
                self._at = begin
                raise self._error("a class is not closed")
            elif self._take("&&"):
                left, found = found if left is None else left & found, NONE
            elif self._text.startswith(("--", "~~"), self._at):
                raise self._error("differences of classes cannot be followed; write them with &&,")
            else:
                found |= self._class_item()
            first = False
        return _inverted(found if left is None else left & found, is_negated)

    def _class_item(self) -> frozenset[int]:
        if named := re.compile(r"\[:(\^?)(\w+):\]").match(self._text, self._at):
            if named[2] not in POSIX:
                raise self._error(f"there is no class {named[2]}")
            self._at = named.end()
            return _inverted(POSIX[named[2]], bool(named[1]))
        if self._text[self._at] == "[":
            return self._class()
        first = self._class_character()
        return first if isinstance(first, frozenset) else self._range(first)

    def _class_character(self) -> frozenset[int] | int:
        if self._text[self._at] != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        if self._text[self._at + 1 : self._at + 2] == "b":
            raise self._error("there is no escape \\b in a class")
        found = self._escape()
        return NONE if found is None else found

    def _range(self, first: int) -> frozenset[int]:
        rest = self._text[self._at : self._at + 2]
        if len(rest) < 2 or rest[0] != "-" or rest in ("-]", "--"):
            return SPECIAL & {first}
        self._at += 1
        last = self._class_character()
        if isinstance(last, frozenset):
            raise self._error("a range ends with a class")
        return frozenset(one for one in SPECIAL if first <= one <= last)

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _error(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{what} at character {self._at + 1} of /{self._text[:60]}/")


def _inverted(special: frozenset[int], is_negated: bool) -> frozenset[int]:
    return SPECIAL - special if is_negated else special


def _either(plain: str, special: frozenset[int]) -> str:
    """What stands for a set: its characters that stay as they are, or the escapes of the others."""
    return f"(?:{plain}|{_exact(escapes(special))})" if special else plain


def _literal(character: int | None, written: str) -> str:
    if character is None or character not in SPECIAL:
        return written
    return _exact(escapes({character}))


def _exact(escape: str) -> str:
    """Escapes have no capitals, whatever the flags say."""
    return f"(?-i:{escape})"
