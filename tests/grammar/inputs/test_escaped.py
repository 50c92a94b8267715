"""A grammar over the text of a JSON string fits the escaped text of what the grammar itself fits, and nothing else."""

from __future__ import annotations

import json

import pytest
from llguidance import LLMatcher, LLTokenizer

from llamabox.errors import InvalidRequest
from llamabox.grammar.inputs.inner import input_grammar

PATCH = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?
hunk: "*** Update File: " /(.+)/ LF change+ | delete
delete: "*** Delete File: " /(.+)/ LF -> gone
change: ("+" | "-" | " ") /(.*)/ LF  // a line
%import common.LF
"""
ARITHMETIC = """
start: sum
sum: product | sum "+" product
product: "(" sum ")" | NUMBER | STRING
STRING: "\\"" /[^"]*/ "\\""
%import common.NUMBER
%ignore " "
"""

TOKENIZER = LLTokenizer("byte")

LARK = {
    "lines": (
        PATCH,
        ('*** Begin Patch\n*** Update File: é.py\n-\t"x" \\n\n+\n*** End Patch', "*** Begin Patch\n*** End Patch"),
    ),
    "recursive": (ARITHMETIC, ('(1 +"a\n")+2', '1 + "a', "(1", "1\t+ 2", "1 + 2")),
    "cases": ('start: "SELECT"i " " /[^;]+/ ";"', ('select "a"\n\\;', "SELEC x;")),
    "ignored": ('start: "x"+\n%import common.WS\n%ignore WS', ("x\n x", "x\\nx")),
    "strings": ('start: S ("," S)*\n%import common.ESCAPED_STRING -> S', ('"a\\"b","c"', '"a')),
    "complement": ("start: T\nT: /(.|\\n)*/ & ~/(?s:.*)END(?s:.*)/", ('a\n"b', "xENDy", "\\")),
    "ranges": ('start: ("a".."c" | "!".."%")+', ("abc", '!"#', "d")),
    "counts": ('start: a\na: "x\\n" ~ 2..3 | ["q"] "y"?', ("x\nx\n", "x\n", "qy", "")),
}

EXPRESSIONS = (
    *(r'[^"]+', r"\S+", r"\W", r".", r"(?s).", r"(?s:.)x", r"[\s\S]*", r"\d{3}-\d{4}", r'[^\n"]*', r"\p{Cc}", r"\P{L}"),
    *(r"[[:space:]a]", r"[^]x]", r"[]\\]", r"[a-z&&[^m]]", r"[\x{0}-\x{22}]", r'(?i)a"\n', r'\\"', r"^ab$", "a/b"),
    *("a\nb", "a\\\nb", r"[^\\]", "\\/\t", r"[\--/]", r"(?:x\u{a}|\u0009){2}", '["\n]'),
)
TEXTS = (
    *map(chr, range(128)),
    *("ab", 'a"\n', 'A"\n', "a/b", "a\nb", '\\"', "ax", '"x', "555-1234", "é", "/\t", "x\nx\n"),
)


def compiled(syntax: str, definition: str, *, is_escaped: bool) -> LLMatcher:
    grammar = input_grammar(syntax, definition, is_escaped=is_escaped)
    matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
    return matcher


def fits(grammar: LLMatcher, text: str) -> bool:
    matcher, given = grammar.deep_copy(), list(text.encode())
    return bool(matcher.try_consume_tokens(given) == len(given) and matcher.is_accepting())


def alike(syntax: str, definition: str, texts: tuple[str, ...]) -> None:
    plain = compiled(syntax, definition, is_escaped=False)
    escaped = compiled(syntax, definition, is_escaped=True)
    for text in texts:
        within = json.dumps(text, ensure_ascii=False)[1:-1]
        assert fits(escaped, within) == fits(plain, text), f"{text!r} of {definition}"


@pytest.mark.parametrize("name", LARK)
def test_lark_grammars(name: str) -> None:
    alike("lark", *LARK[name])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_regular_expressions(expression: str) -> None:
    alike("regex", expression, TEXTS)


@pytest.mark.parametrize(
    ("syntax", "definition", "named"),
    [
        ("lark", "start: <|x|>", "control tokens"),
        ("lark", "start: a\na: @b", "line 2"),
        ("lark", '%llguidance {}\nstart: "a"', "%llguidance"),
        ("lark", "start: %json {}", "%json"),
        ("lark", "%import python.NAME", "common"),
        ("lark", 'start: a\na[stop="x"]: /x/', "stop"),
        ("lark", "start: 'a'", "double quotes"),
        ("lark", r'start: "\d"', "escape"),
        ("lark", "start: /[a/", "not closed"),
        ("regex", "(?m)^a", "flag m"),
        ("regex", r"\q", r"\q"),
        ("regex", r"\p{Nonsense}", "property"),
    ],
)
@pytest.mark.parametrize("is_escaped", [True, False])
def test_what_cannot_be_followed_is_refused_in_every_form(
    syntax: str, definition: str, named: str, *, is_escaped: bool
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        input_grammar(syntax, definition, is_escaped=is_escaped)
    assert named in refused.value.message
