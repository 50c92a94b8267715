"""GBNF rules as a grammar of llguidance, in its dialect of Lark.

llguidance reads in two stages: a lexer that always takes the longest lexeme, and an Earley parser of lexemes. GBNF has
no such stages: `[a-z]+ "end"` says `send`, where a lexer would see one long word. So that nothing is lost,

* a grammar in which no rule comes back to itself is regular: it becomes one lexeme, which a lexer reads exactly;
* in any other grammar each character is a lexeme of its own, and the parser sees them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from llamabox.grammar.gbnf import LAST, Alternatives, Chars, Node, Reference, Repeat, Series, Token, references


def to_lark(rules: Mapping[str, Alternatives]) -> str:
    """The Lark text for the rules of `gbnf.parse`. Rules that `root` does not lead to are left out."""
    order, is_recursive = _walk(rules)
    if is_recursive or any(_has_token(rules[name]) for name in order):
        return _Rules(order).write(rules)
    return _Terminals(order).write(rules)


def _walk(rules: Mapping[str, Alternatives]) -> tuple[list[str], bool]:
    """The rules that `root` leads to, each after those that it refers to, and whether one leads back to itself."""
    order: list[str] = []
    open_names, done = {"root"}, set()
    is_recursive = False
    path = [("root", references(rules["root"]))]
    while path:
        name, pending = path[-1]
        following = next(pending, None)
        if following is None:
            path.pop()
            open_names.discard(name)
            done.add(name)
            order.append(name)
        elif following in open_names:
            is_recursive = True
        elif following not in done:
            open_names.add(following)
            path.append((following, references(rules[following])))
    return order, is_recursive


def _has_token(node: Node) -> bool:
    match node:
        case Token():
            return True
        case Repeat():
            return _has_token(node.node)
        case Series() | Alternatives():
            return any(_has_token(part) for part in node.nodes)
    return False


class _RuleWriter(ABC):
    """Writes rules one a line, in words for characters and for names that its subclass chooses."""

    prefix = ""

    def __init__(self, names: list[str]) -> None:
        self._names = {name: f"{self.prefix}{i}" for i, name in enumerate(names)}

    def body(self, node: Node) -> str:
        match node:
            case Chars():
                return self.chars([node])
            case Token():
                return f"<[{'^' * node.negated}{node.token}]>"
            case Reference():
                return self._names[node.name]
            case Repeat():
                return f"({self.body(node.node)}){_times(node)}"
            case Series():
                return self.series(node)
            case Alternatives():
                return "(" + " | ".join(self.body(series) for series in node.nodes) + ")"

    def series(self, node: Series) -> str:
        parts: list[str] = []
        run: list[Chars] = []
        for part in node.nodes:
            if isinstance(part, Chars):
                run.append(part)
                continue
            if run:
                parts.append(self.chars(run))
                run = []
            parts.append(self.body(part))
        if run:
            parts.append(self.chars(run))
        return " ".join(parts) or '""'

    @abstractmethod
    def chars(self, run: list[Chars]) -> str:
        """A run of characters that follow one another."""


class _Terminals(_RuleWriter):
    """Each rule a terminal, and runs of characters one expression."""

    prefix = "R"

    def write(self, rules: Mapping[str, Alternatives]) -> str:
        lines = [f"{name}: {self.body(rules[rule])}" for rule, name in self._names.items()]
        return "\n".join([f"start: {self._names['root']}", *lines, ""])

    def chars(self, run: list[Chars]) -> str:
        return f"/{''.join(map(_expression, run))}/"


class _Rules(_RuleWriter):
    """Each rule a rule, and each class of characters a terminal."""

    prefix = "r"

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self._classes: dict[Chars, str] = {}

    def write(self, rules: Mapping[str, Alternatives]) -> str:
        lines = [f"{name}: {self.body(rules[rule])}" for rule, name in self._names.items()]
        terminals = [f"{name}: /{_expression(chars)}/" for chars, name in self._classes.items()]
        return "\n".join([f"start: {self._names['root']}", *lines, *terminals, ""])

    def chars(self, run: list[Chars]) -> str:
        return " ".join(self._classes.setdefault(chars, f"C{len(self._classes)}") for chars in run)


def _times(node: Repeat) -> str:
    simple = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((node.n_min, node.n_max))
    return simple or f"{{{node.n_min},{'' if node.n_max is None else node.n_max}}}"


def _expression(chars: Chars) -> str:
    """A class of the Rust regex crate; numbers instead of characters, so that none needs an escape."""
    if chars.ranges == ((1, LAST),):
        return r"[^\x{0}]"
    return "[" + "".join(f"\\x{{{a:x}}}" + (f"-\\x{{{b:x}}}" if b > a else "") for a, b in chars.ranges) + "]"
