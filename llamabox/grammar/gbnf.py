"""GBNF, llama.cpp's grammar language: text to a tree of rules. The syntax is that of llama-grammar.cpp.

    root  ::= "yes" | "no" why      a rule; alternatives; the grammar begins with `root`
    why   ::= (", " word){1,3}      groups; `*`, `+`, `?`, `{n}`, `{n,}`, `{n,m}`
    word  ::= [a-z] [^ \\n]* .       characters of a class, not of a class, any; # begins a comment
    tool  ::= <|tool|> !<[17]>      one token by its text, any token but the one with this id

Unlike there, left recursion is allowed, and what could only be a mistake is refused: an empty class, a range the wrong
way round, a character that UTF-8 does not have, a root that never ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llamabox.errors import InvalidRequest

MAX_DEPTH = 64
"""Groups within groups."""

MAX_STACKED = 4
"""Repetitions of repetitions, as in `x*?`."""

MAX_REPEAT = 1_000_000
"""A bound of a repetition."""

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)

SIMPLE_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}
REPEATS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}

BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
NAME = re.compile(r"[a-zA-Z0-9-]+")
NUMBER = re.compile(r"[0-9]+")
TOKEN_ID = re.compile(r"<\[([0-9]+)\]>")
TOKEN_TEXT = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of inclusive code point ranges, ascending and apart. U+0000 is in none: no text has it."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the vocabulary, or any but that one."""

    token: int
    negated: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """The rule of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """`node` from n_min to n_max times; None: without an end."""

    node: Node
    n_min: int
    n_max: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """One after the other; none is the empty text."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of them."""

    nodes: tuple[Series, ...]


Node = Chars | Token | Reference | Repeat | Series | Alternatives

TokenFinder = Callable[[str], int | None]
"""The id of the token with a text, such as `<|im_end|>`; None where that is not one token."""

ANY = Chars(((1, LAST),))


def parse(text: str, find_token: TokenFinder, n_tokens: int) -> dict[str, Alternatives]:
    """The rules by name; `root` and every name that is referred to is among them.

    Raises InvalidRequest that says what is wrong and in which line.
    """
    rules = _Parser(text, find_token, n_tokens).parse()
    if "root" not in rules:
        raise _wrong("has no rule `root`, with which it would begin")
    for name, rule in rules.items():
        for reference in references(rule):
            if reference not in rules:
                raise _wrong(f"the rule `{name}` refers to `{reference}`, which is not defined")
    _check_ends(rules)
    return rules


def references(node: Node) -> Iterator[str]:
    """Names of the rules in it."""
    match node:
        case Reference():
            yield node.name
        case Repeat():
            yield from references(node.node)
        case Series() | Alternatives():
            for part in node.nodes:
                yield from references(part)


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(what)


def _check_ends(rules: dict[str, Alternatives]) -> None:
    """Raises where no text belongs to `root`: every one would have to go on for ever."""
    ends: set[str] = set()
    users: dict[str, list[str]] = {}
    for name, rule in rules.items():
        for used in references(rule):
            users.setdefault(used, []).append(name)
    pending = list(rules)
    while pending:
        name = pending.pop()
        if name not in ends and _may_end(rules[name], ends):
            ends.add(name)
            pending += users.get(name, [])
    if "root" not in ends:
        raise _wrong("`root` can never end: each of its alternatives needs itself")


def _may_end(node: Node, ends: set[str]) -> bool:
    match node:
        case Reference():
            return node.name in ends
        case Repeat():
            return node.n_min == 0 or _may_end(node.node, ends)
        case Series():
            return all(_may_end(part, ends) for part in node.nodes)
        case Alternatives():
            return any(_may_end(part, ends) for part in node.nodes)
    return True


class _Parser:
    def __init__(self, text: str, find_token: TokenFinder, n_tokens: int) -> None:
        self._text = text
        self._find_token = find_token
        self._n_tokens = n_tokens
        self._at = 0

    def parse(self) -> dict[str, Alternatives]:
        rules: dict[str, Alternatives] = {}
        self._skip(BLANK_LINES)
        while self._at < len(self._text):
            name = self._expect(NAME, "the name of a rule")
            self._skip(BLANK)
            self._expect(re.compile("::="), "`::=`")
            self._skip(BLANK_LINES)
            rules[name] = self._choice(0)  # the last of several definitions counts
            if self._at < len(self._text) and self._here not in "\r\n":
                raise self._error("expected the end of the line")
            self._skip(BLANK_LINES)
        return rules

    @property
    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, what: str) -> InvalidRequest:
        line = self._text.count("\n", 0, self._at) + 1
        rest = self._text[self._at : self._at + 20]
        return _wrong(f"{what} in line {line} at {rest!r}" if rest else f"{what} at the end")

    def _skip(self, blank: re.Pattern[str]) -> None:
        found = blank.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _expect(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(f"expected {what}")
        self._at = found.end()
        return found.group()

    def _choice(self, depth: int) -> Alternatives:
        if depth > MAX_DEPTH:
            raise self._error(f"groups are nested more than {MAX_DEPTH} deep")
        nodes = [self._series(depth)]
        while self._here == "|":
            self._at += 1
            self._skip(BLANK_LINES)
            nodes.append(self._series(depth))
        return Alternatives(tuple(nodes))

    def _series(self, depth: int) -> Series:
        blank = BLANK_LINES if depth else BLANK
        nodes: list[Node] = []
        n_more = 0  # repetitions that the last item may still get
        while self._at < len(self._text):
            if self._here in "*+?{":
                if n_more == 0:
                    raise self._error("there is nothing to repeat")
                n_more -= 1
                nodes[-1] = Repeat(nodes[-1], *self._repeat(blank))
            else:
                node = self._item(depth)
                if node is None:
                    break
                nodes.append(node)
                n_more = 0 if node == Series(()) else MAX_STACKED
            self._skip(blank)
        return Series(tuple(nodes))

    def _item(self, depth: int) -> Node | None:
        """The next one, None where there is none."""
        match self._here:
            case '"':
                return self._literal()
            case "[":
                return self._class()
            case ".":
                self._at += 1
                return ANY
            case "<" | "!":
                return self._token()
            case "(":
                self._at += 1
                self._skip(BLANK_LINES)
                group = self._choice(depth + 1)
                self._expect(re.compile(r"\)"), "`)`")
                return group
        if NAME.match(self._here):
            return Reference(self._expect(NAME, "a name"))
        return None

    def _repeat(self, blank: re.Pattern[str]) -> tuple[int, int | None]:
        simple = REPEATS.get(self._here)
        self._at += 1
        if simple is not None:
            return simple
        self._skip(blank)
        n_min = self._count()
        n_max: int | None = n_min
        self._skip(blank)
        if self._here == ",":
            self._at += 1
            self._skip(blank)
            n_max = self._count() if NUMBER.match(self._here) else None
            self._skip(blank)
        self._expect(re.compile("}"), "`}`")
        if n_max is not None and n_max < n_min:
            raise self._error(f"a repetition of {n_min} to {n_max} times ends before it begins,")
        return n_min, n_max

    def _count(self) -> int:
        digits = self._expect(NUMBER, "a number")
        if len(digits) > 9 or int(digits) > MAX_REPEAT:
            raise self._error(f"a repetition may be of {MAX_REPEAT} at most, not {digits[:20]}")
        return int(digits)

    def _literal(self) -> Series:
        self._at += 1
        nodes: list[Node] = []
        while self._here != '"':
            code = self._character()
            if not _scalars(code, code):
                raise self._error(f"U+{code:04X} is in no text")
            nodes.append(Chars(((code, code),)))
        self._at += 1
        return Series(tuple(nodes))

    def _class(self) -> Chars:
        self._at += 1
        negated = self._here == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._here != "]":
            first = last = self._character()
            if self._here == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._character()
            if last < first:
                raise self._error(f"the range U+{first:04X} to U+{last:04X} is the wrong way round")
            ranges.append((first, last))
        self._at += 1
        merged = _merge(ranges)
        if not merged:
            raise self._error("a class needs characters")
        if negated:
            merged = _merge(_outside(ranges))
            if not merged:
                raise self._error("a class leaves no character")
        return Chars(merged)

    def _character(self) -> int:
        if not self._here:
            raise self._error("expected a closing quote or bracket")
        if self._here != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        kind = self._text[self._at + 1 : self._at + 2]
        if kind in SIMPLE_ESCAPES:
            self._at += 2
            return ord(SIMPLE_ESCAPES[kind])
        n_digits = HEX_ESCAPES.get(kind, 0)
        digits = self._text[self._at + 2 : self._at + 2 + n_digits]
        if not n_digits or len(digits) != n_digits or not re.fullmatch("[0-9a-fA-F]+", digits):
            raise self._error("there is no such escape")
        if int(digits, 16) > LAST:
            raise self._error(f"characters end at U+{LAST:04X}")
        self._at += 2 + n_digits
        return int(digits, 16)

    def _token(self) -> Token:
        negated = self._here == "!"
        self._at += negated
        by_id = TOKEN_ID.match(self._text, self._at)
        if by_id is not None:
            digits = by_id.group(1)
            token = int(digits) if len(digits) < 10 else self._n_tokens
        else:
            text = self._expect(TOKEN_TEXT, "a token, as in <|im_end|> or <[17]>")
            found = self._find_token(text)
            if found is None:
                raise self._error(f"{text[:40]} is not one token of this model's vocabulary,")
            return Token(found, negated)
        if token >= self._n_tokens:
            raise self._error(f"token ids go from 0 to {self._n_tokens - 1},")
        self._at = by_id.end()
        return Token(token, negated)


def _outside(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found, start = [], 0
    for first, last in sorted(ranges):
        if first > start:
            found.append((start, first - 1))
        start = max(start, last + 1)
    return [*found, (start, LAST)] if start <= LAST else found


def _merge(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The parts of these ranges that a text can have, in order and apart."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(part for whole in ranges for part in _scalars(*whole)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _scalars(first: int, last: int) -> list[tuple[int, int]]:
    """The range without U+0000 and surrogates."""
    parts = [(max(first, 1), min(last, SURROGATES[0] - 1)), (max(first, SURROGATES[1] + 1), last)]
    return [(low, high) for low, high in parts if low <= high]
