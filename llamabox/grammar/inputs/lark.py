"""A Lark grammar for texts as one for these texts within a JSON string.

llguidance reads in two stages: a lexer that takes the longest lexeme and never goes back, and a parser of lexemes. It
would take the backslash of an escaped line break behind `/.*/` for a part of the line, and be stuck. So

* a grammar in which no rule comes back to itself is regular: it becomes one lexeme, which a lexer reads exactly;
* in any other grammar the rules stay, and each terminal is over escaped text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from llamabox.errors import InvalidRequest
from llamabox.grammar.inputs.escapes import PLAIN, SPECIAL, escaped, escapes
from llamabox.grammar.inputs.regex import in_json_string as escaped_regex

WORD = re.compile(
    r"""
    (?P<blank>\s+|//[^\n]*|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\\n])*"i?)
    | (?P<regex>/(?:\\.|[^/\\])+/[a-zA-Z]*)
    | (?P<directive>%\w+)
    | (?P<name>[!?]?[A-Za-z_]\w*)
    | (?P<number>\d+)
    | (?P<other>\.\.|->|::|.)
    """,
    re.VERBOSE | re.DOTALL,
)

IMPORT = re.compile(r"\s*common\s*\.\s*(?P<name>\w+)(?:\s*->\s*(?P<alias>\w+))?|\s*common\s*\((?P<names>[\w\s,]*)\)")

TERMINALS = {
    "WS": r"[ \t\f\r\n]+",
    "WS_INLINE": r"[ \t]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(\r?\n)+",
    "ESCAPED_STRING": r'"([^"\\]|\\.)*"',
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"//[^\n]*",
    "C_COMMENT": r"/\*[^*]*\*+([^/*][^*]*\*+)*/",
    "SQL_COMMENT": r"--[^\n]*",
}
"""Lark's own terminals that have characters which a JSON string escapes. The others are taken as they are."""

MAX_IMPORT = 256
"""Words of one %import."""

IGNORE, IMPORTS = "%ignore", "%import"

IN_SLASHES = {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}
"""What stands between slashes for a slash and for a line break."""

NOT_FOLLOWED = frozenset({"stop", "stop_capture", "max_tokens", "temperature"})
"""Attributes of rules that would change or cut what was said."""

ANY_TEXT = f"/(?:{PLAIN}|{escapes(SPECIAL)})*/"


@dataclass(frozen=True, slots=True)
class Word:
    kind: str
    text: str
    line: int


def in_json_string(definition: str) -> str:
    """The grammar over escaped text. Raises InvalidRequest naming the line."""
    words = list(_words(definition))
    grammar = _read(words)
    if any(one.has_attributes for one in grammar.definitions) or _is_recursive(grammar):
        return "".join(_Rewriting(words).run())
    return _flat(grammar)


def check(definition: str) -> None:
    """Raise InvalidRequest, naming the line, for a grammar that is none for a text: one that asks for control tokens,
    other grammars, or words of llguidance that change what was said."""
    in_json_string(definition)


def regex_grammar(pattern: str) -> str:
    """The grammar of all texts that a regular expression matches whole."""
    return f"start: {_regex_literal(pattern)}\n"


def _words(definition: str) -> Iterator[Word]:
    line = 1
    for found in WORD.finditer(definition):
        assert found.lastgroup is not None
        yield Word(found.lastgroup, found[0], line)
        line += found[0].count("\n")


@dataclass(frozen=True, slots=True)
class Definition:
    """A rule or a terminal. `body` has no blanks."""

    name: str
    body: Sequence[Word]
    has_attributes: bool  # in brackets behind its name

    @property
    def is_rule(self) -> bool:
        return self.name.lstrip("_")[:1].islower()


@dataclass(slots=True)
class Grammar:
    definitions: list[Definition] = field(default_factory=list)
    ignored: list[Sequence[Word]] = field(default_factory=list)
    imported: list[Word] = field(default_factory=list)  # the words of each %import


def _read(words: Sequence[Word]) -> Grammar:
    """Cut the words into statements, each of which begins a line."""
    grammar = Grammar()
    told = [word for word in words if word.kind != "blank"]
    starts = [i for i in range(len(told)) if _begins_statement(told, i)]
    for begin, end in zip(starts, [*starts[1:], len(told)], strict=True):
        first, body = told[begin], told[begin + 1 : end]
        if first.text == IMPORTS:
            grammar.imported += told[begin:end]
        elif first.text == IGNORE:
            grammar.ignored.append(body)
        elif first.kind == "directive":
            raise _error(first, f"{first.text} cannot be followed in the input of a tool; %ignore and %import can")
        else:
            colon = next(i for i, word in enumerate(body) if word.text == ":")
            name = first.text.lstrip("!?")
            grammar.definitions.append(Definition(name, body[colon + 1 :], any(w.text == "[" for w in body[:colon])))
    return grammar


def _begins_statement(words: Sequence[Word], i: int) -> bool:
    if words[i].kind == "directive":
        return True
    if words[i].kind != "name" or (i > 0 and words[i - 1].line == words[i].line):
        return False
    behind = [word.text for word in words[i + 1 : i + 32]]
    return ":" in behind[:1] or (
        behind[:1] in (["["], ["."]) and ":" in behind and "|" not in behind[: behind.index(":")]
    )


def _is_recursive(grammar: Grammar) -> bool:
    """Whether a rule leads back to itself."""
    names = {one.name for one in grammar.definitions}
    left = {
        one.name: {w.text.lstrip("!?") for w in one.body if w.kind == "name"} & names for one in grammar.definitions
    }
    while done := [name for name, leads_to in left.items() if not leads_to]:
        for name in done:
            del left[name]
        for leads_to in left.values():
            leads_to.difference_update(done)
    return bool(left)


def _flat(grammar: Grammar) -> str:
    """All rules as terminals, of which the first is the whole text."""
    names = {one.name: f"T{i}" for i, one in enumerate(grammar.definitions)}
    lines = ["".join(_Rewriting(grammar.imported, names).run())] if grammar.imported else []
    skipped = ""
    if grammar.ignored:
        choices = [" ".join(_Rewriting(body, names).run()) for body in grammar.ignored]
        lines.append(f"IGNORED: ({' | '.join(f'({one})' for one in choices)})*")
        skipped = "IGNORED"
    for one in grammar.definitions:
        made = _Rewriting(one.body, names, skipped if one.is_rule else "").run()
        lines.append(f"{names[one.name]}: {' '.join(made)}")
    return "\n".join([f"start: {names.get('start', 'start')}", *lines, ""])


class _Rewriting:
    """Writes words anew. `names` are those that rules and terminals get.

    `skipped` is the terminal of what may stand behind any other one.
    """

    def __init__(self, words: Sequence[Word], names: Mapping[str, str] | None = None, skipped: str = "") -> None:
        self._words = words
        self._at = 0
        self._names = names
        self._skipped = skipped

    def run(self) -> Iterator[str]:
        while self._at < len(self._words):
            yield self._next()

    def _next(self) -> str:
        word = self._words[self._at]
        self._at += 1
        match word.kind:
            case "string":
                return self._terminal(self._string(word))
            case "regex":
                pattern, _, flags = word.text[1:].rpartition("/")
                made = self._regex(word, pattern.replace("\\/", "/"), flags)
                return self._terminal(_regex_literal(made, flags))
            case "directive":
                return self._directive(word)
            case "name" if word.text in NOT_FOLLOWED and self._peek().text == "=":
                raise _error(word, f"the attribute {word.text} cannot be followed in the input of a tool; leave it out")
            case "name" if self._names is not None:
                name = word.text.lstrip("!?")
                made = self._names.get(name, name)
                return made if name.lstrip("_")[:1].islower() else self._terminal(made)
            case "other" if word.text in "<@":
                raise _error(word, f"{word.text}: control tokens and other grammars are no part of a tool's input")
            case "other" if word.text == "~":
                return self._times() if self._peek().kind == "number" else self._complement(word)
            case "other" if word.text in "\"'":
                raise _error(word, "a text stands in double quotes, on one line")
            case "other" if word.text == "->" and self._names is not None:  # names of branches say nothing here
                self._at += 1
                return ""
        return word.text

    def _terminal(self, made: str) -> str:
        return f"({made} {self._skipped})" if self._skipped else made

    def _times(self) -> str:
        """`x ~ 2..3`."""
        found = re.match(r"\s*(\d+)(?:\s*\.\.\s*(\d+))?", "".join(w.text for w in self._words[self._at : self._at + 6]))
        assert found is not None
        n = 0
        while n < found.end():
            n += len(self._words[self._at].text)
            self._at += 1
        return f"{{{found[1]},{found[2]}}}" if found[2] else f"{{{found[1]}}}"

    def _peek(self) -> Word:
        """The next word that is not blank."""
        i = self._at
        while i < len(self._words) and self._words[i].kind == "blank":
            i += 1
        return self._words[i] if i < len(self._words) else Word("end", "", self._words[-1].line)

    def _skip_blanks(self) -> None:
        while self._at < len(self._words) and self._words[self._at].kind == "blank":
            self._at += 1

    def _string(self, word: Word) -> str:
        text = _value(word)
        if self._peek().text == "..":
            return self._range(word, text)
        if not word.text.endswith("i"):
            return orjson.dumps(escaped(text)).decode()
        return _regex_literal(self._regex(word, re.escape(text), "i"), "i") if text else '""'

    def _range(self, word: Word, first: str) -> str:
        """`"a".."z"`: one character."""
        self._skip_blanks()
        self._at += 1
        self._skip_blanks()
        end = self._peek()
        self._at += 1
        last = _value(end) if end.kind == "string" else ""
        if len(first) != 1 or len(last) != 1:
            raise _error(word, "a range is of two characters")
        return _regex_literal(self._regex(word, f"[\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}]"))

    def _regex(self, word: Word, pattern: str, flags: str = "") -> str:
        try:
            return escaped_regex(pattern, flags)
        except InvalidRequest as error:
            raise _error(word, error.message) from error

    def _directive(self, word: Word) -> str:
        if word.text == IGNORE:
            return word.text
        rest = "".join(one.text for one in self._words[self._at : self._at + MAX_IMPORT])
        found = IMPORT.match(rest)
        if found is None:
            raise _error(word, "%import takes terminals of `common` alone, as in %import common.WS")
        n = 0
        while n < found.end():
            n += len(self._words[self._at].text)
            self._at += 1
        if found["name"]:
            return _imported(found["name"], found["alias"] or found["name"])
        return "\n".join(_imported(name, name) for name in re.findall(r"\w+", found["names"]))

    def _complement(self, word: Word) -> str:
        """All texts but these: of those that can stand in a JSON string."""
        self._skip_blanks()
        made, depth = [], 0
        while self._at < len(self._words):
            depth += {"(": 1, ")": -1}.get(self._words[self._at].text, 0)
            made.append(self._next())
            if depth == 0:
                return f"(~{''.join(made)} & {ANY_TEXT})"
        raise _error(word, "~ has nothing behind it")


def _imported(name: str, alias: str) -> str:
    if name in TERMINALS:
        return f"{alias}: {_regex_literal(escaped_regex(TERMINALS[name]))}"
    return f"%import common.{name}" + (f" -> {alias}" if alias != name else "")


def _value(word: Word) -> str:
    try:
        text: str = orjson.loads(word.text.removesuffix("i"))
    except ValueError:
        raise _error(word, f"{word.text[:40]} is no string of JSON: an escape is wrong, or missing") from None
    return text


def _regex_literal(pattern: str, flags: str = "") -> str:
    """A regular expression between slashes."""
    pattern = re.sub(r"\\.|[/\n]", lambda found: IN_SLASHES.get(found[0], found[0]), pattern, flags=re.DOTALL)
    return f"/{pattern}/{'i' if 'i' in flags else ''}"


def _error(word: Word, what: str) -> InvalidRequest:
    return InvalidRequest(f"line {word.line}: {what}")
