"""GBNF: what is read, what is refused and how that is said. What the rules mean is tested on a real vocabulary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.errors import InvalidRequest
from llamabox.grammar.gbnf import ANY, LAST, MAX_DEPTH, Alternatives, Chars, Reference, Repeat, Series, Token, parse
from llamabox.grammar.lark import to_lark


def read(text: str) -> dict[str, Alternatives]:
    return parse(text, {"<|end|>": 7}.get, 100)


def root(text: str) -> Alternatives:
    return read(f"root ::= {text}")["root"]


def char(text: str) -> Chars:
    return Chars(((ord(text), ord(text)),))


def only(*nodes: object) -> Alternatives:
    return Alternatives((Series(nodes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"ab"', only(Series((char("a"), char("b"))))),
        ('"\\"\\\\\\n\\x41\\u00e9\\U0001F600\\[\\]\\-"', only(Series(tuple(map(char, '"\\\nAé😀[]-'))))),
        ('""', only(Series(()))),
        ("", only()),
        ("[a-c]", only(Chars(((97, 99),)))),
        ("[c-da-b]", only(Chars(((97, 100),)))),
        ("[a-]", only(Chars(((45, 45), (97, 97))))),
        ("[-a]", only(Chars(((45, 45), (97, 97))))),
        ("[^b-\\x7f]", only(Chars(((1, 97), (128, 0xD7FF), (0xE000, LAST))))),
        ("[\\x00-\\x02]", only(Chars(((1, 2),)))),
        (".", only(ANY)),
        (".*", only(Repeat(ANY, 0, None))),
        (".+?", only(Repeat(Repeat(ANY, 1, None), 0, 1))),
        (".{3}", only(Repeat(ANY, 3, 3))),
        (".{ 3 , }", only(Repeat(ANY, 3, None))),
        (".{3,5}", only(Repeat(ANY, 3, 5))),
        (". | .", Alternatives((Series((ANY,)), Series((ANY,))))),
        (". |\n  # a comment\n .", Alternatives((Series((ANY,)), Series((ANY,))))),
        ("(.\n | )", only(Alternatives((Series((ANY,)), Series(()))))),
        ("<|end|> !<|end|> <[3]> !<[99]>", only(Token(7, False), Token(7, True), Token(3, False), Token(99, True))),
    ],
)
def test_what_is_read(text: str, expected: Alternatives) -> None:
    assert root(text) == expected


def test_rules_stand_in_any_order_and_the_last_of_two_counts() -> None:
    rules = read('# first\n\n  b-1::="x"\r\nroot ::=\n  b-1 # end\r\n\nb-1 ::= .')
    assert rules == {"root": only(Reference("b-1")), "b-1": only(ANY)}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no rule `root`"),
        ('start ::= "a"', "no rule `root`"),
        ("root", "`::=`"),
        ("root ::= a", "`a`, which is not defined"),
        ("root ::= a_b\na ::= .", "end of the line in line 1 at '_b"),
        ("root ::= .\n  | .", "name of a rule in line 2"),
        ('root ::= "a', "closing quote"),
        ("root ::= [a", "closing quote"),
        ("root ::= (.", "`)`"),
        ("root ::= .)", "end of the line"),
        ("root ::= *", "nothing to repeat"),
        ('root ::= ""*', "nothing to repeat"),
        ("root ::= .*****", "nothing to repeat"),
        ("root ::= .{", "a number"),
        ("root ::= .{3", "`}`"),
        ("root ::= .{5,3}", "ends before it begins"),
        ("root ::= .{99999999999999999999}", "1000000 at most"),
        ("root ::= .{2,1000001}", "1000000 at most"),
        ("root ::= []", "needs characters"),
        ("root ::= [^\\x00-\\U0010FFFF]", "no character"),
        ("root ::= [z-a]", "wrong way round"),
        ('root ::= "\\q"', "no such escape"),
        ('root ::= "\\x4"', "no such escape"),
        ('root ::= "\\U00110000"', "end at U+10FFFF"),
        ('root ::= "\\ud800"', "in no text"),
        ('root ::= "\\x00"', "in no text"),
        ("root ::= <|start|>", "not one token"),
        ("root ::= <[100]>", "0 to 99"),
        (f"root ::= <[{'9' * 5000}]>", "0 to 99"),
        ("root ::= <[x", "a token"),
        ("root ::= root", "never end"),
        ('root ::= a | "x" root\na ::= "y" a', "never end"),
        (f"root ::= {'(' * (MAX_DEPTH + 1)}.{')' * (MAX_DEPTH + 1)}", "deep"),
        ("root ::= " + "(" * 200_000, "deep"),
    ],
)
def test_what_is_refused_and_why(text: str, part: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert part in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.field is None, "who has the text knows its field"


@given(st.lists(st.sampled_from([*'abc"[]()|*+?{}.<>!^-\\#\n :=', "root ::= ", '"x"', "[a-z]", "{1,2}"])).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rules = read("root ::= " + text)
    except InvalidRequest:
        return
    assert to_lark(rules)


def test_the_deepest_groups_are_written() -> None:
    assert to_lark(read(f"root ::= {'(' * MAX_DEPTH}.{')*?*?' * MAX_DEPTH}")).count("(") > MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "is_regular"),
    [
        ("root ::= a a\na ::= .*", True),
        ('root ::= "(" root ")" | .', False),
        ('root ::= . \nunused ::= "x" unused | .', True),
        ("root ::= a\na ::= b\nb ::= a | .", False),
        ("root ::= <[3]>", False),
    ],
)
def test_only_a_regular_grammar_is_one_lexeme(text: str, is_regular: bool) -> None:
    """A lexer takes the longest lexeme, so that in any other grammar no lexeme may be longer than a character."""
    lark = to_lark(read(text))
    assert ("start: R" in lark) == is_regular
    if not is_regular:
        assert all(line.count("[") <= 1 for line in lark.splitlines() if line.startswith("C"))
