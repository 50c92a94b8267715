"""Structural tags: what fits a format, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from llamabox.chat.formats.grammar.structural import structural_grammar
from llamabox.checks import mapping
from llamabox.errors import InvalidRequest
from llamabox.grammar.guidance import answer_grammar
from llamabox.grammar.inputs.inner import input_grammar

TOKENIZER = LLTokenizer("byte")
NUMBER = {"type": "json_schema", "json_schema": {"type": "integer"}}
F = {"begin": "<f>", "content": NUMBER, "end": "</f>"}
G = {"begin": "<g>", "content": {"type": "any_text"}, "end": "</g>"}
ANY = {"type": "any_text"}


def const(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def triggered(**more: Any) -> dict[str, Any]:
    return {"type": "triggered_tags", "triggers": ["<f", "<g>"], "tags": [F, G], **more}


def fits(value: dict[str, Any], text: str) -> bool:
    grammar, expressions = structural_grammar(value, "response_format", lambda where, given: mapping(where, given))
    inner = {name: input_grammar("regex", one, is_escaped=False) for name, _, one in expressions}
    matcher = LLMatcher(TOKENIZER, answer_grammar(grammar, inner), log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
    given = list(text.encode())
    return bool(matcher.try_consume_tokens(given) == len(given) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("format_", "right", "wrong"),
    [
        (const("a"), ("a",), ("", "b", "aa")),
        (NUMBER, ("12",), ("x",)),
        ({"type": "regex", "pattern": "[ab]+/"}, ("ab/",), ("c", "ab")),
        (ANY, ("", "a\nb"), ()),
        ({**ANY, "excludes": ["no"]}, ("yes", "n o"), ("a no",)),
        ({"type": "or", "elements": [const("a"), NUMBER]}, ("a", "7"), ("a7",)),
        ({"type": "tag", **F}, ("<f>3</f>",), ("<f>x</f>", "3")),
        ({"type": "tag", **G}, ("<g>x</g>", "<g></g>"), ("<g>x</g>y",)),
        ({"type": "tag", **G, "end": ["</g>", "."]}, ("<g>x</g>", "<g>x."), ("<g>x",)),
        (triggered(), ("", "a <b", "a <f>3</f> b <g>x</g>"), ("<f>x</f>", "<fx", "a <f>3")),
        (triggered(at_least_one=True), ("a <f>3</f>",), ("a",)),
        (triggered(stop_after_first=True), ("a <f>3</f>", "a"), ("<f>3</f><f>3</f>", "<f>3</f> b")),
        (
            {"type": "tags_with_separator", "tags": [F, G], "separator": ","},
            ("", "<f>3</f>,<g>x</g>"),
            ("<f>3</f><g>x</g>", "a"),
        ),
        (
            {
                "type": "sequence",
                "elements": [{"type": "tag", "begin": "<t>", "content": ANY, "end": "</t>"}, triggered()],
            },
            ("<t>hm <f></t>a <f>3</f>", "<t></t>"),
            ("a", "<t>x</t><f>y"),
        ),
        ({"type": "sequence", "elements": [ANY, const("END"), NUMBER]}, ("a b END4", "END4"), ("END", "4")),
        ({"type": "sequence", "elements": [ANY, {"type": "tag", **G}, const(";")]}, ("a <g>x</g>;",), ("a <g>x</g>",)),
        ({"type": "sequence", "elements": [triggered(), const("END")]}, ("a<f>3</f>bEND", "END"), ("a<f>3</f>b",)),
        ({"type": "optional", "content": NUMBER}, ("", "4"), ("x",)),
        ({"type": "plus", "content": const("ab")}, ("ab", "abab"), ("", "aba")),
        ({"type": "star", "content": const("ab")}, ("", "abab"), ("a",)),
        ({"type": "repeat", "content": const("a"), "min": 2, "max": 3}, ("aa", "aaa"), ("a", "aaaa")),
    ],
)
def test_formats(format_: dict[str, Any], right: tuple[str, ...], wrong: tuple[str, ...]) -> None:
    for text in right:
        assert fits({"format": format_}, text), text
    for text in wrong:
        assert not fits({"format": format_}, text), text


def test_the_older_words() -> None:
    structure = {"begin": "<function=f>", "schema": {"type": "integer"}, "end": "</function>"}
    value = {"structures": [structure], "triggers": ["<function="]}
    assert fits(value, "I call <function=f>3</function> now")
    assert not fits(value, "I call <function=g>")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"schema": 5}, "structures[0].schema"),
        ({"begin": 5}, "structures[0].begin"),
        ({"begin": "<h>"}, "structures[0].begin"),
        ({"end": None}, "structures[0].end"),
    ],
)
def test_the_older_words_are_refused_by_their_names(changed: dict[str, Any], field: str) -> None:
    structure = {"begin": "<function=f>", "schema": {"type": "integer"}, "end": "</function>", **changed}
    with pytest.raises(InvalidRequest) as refused:
        fits({"structures": [structure], "triggers": ["<function="]}, "")
    assert refused.value.field == f"response_format.{field}"


@pytest.mark.parametrize(
    ("format_", "field"),
    [
        ({"type": "grammar", "grammar": "root ::= x"}, "response_format.format.type"),
        ({"type": "json_schema", "json_schema": {}, "style": "qwen_xml"}, "response_format.format.style"),
        ({"type": "sequence", "elements": []}, "response_format.format.elements"),
        ({"type": "sequence", "elements": [ANY, NUMBER]}, "response_format.format.elements[0]"),
        ({"type": "star", "content": ANY}, "response_format.format.content"),
        (triggered(triggers=["<h"]), "response_format.format.tags[0].begin"),
        (triggered(tags=[{**G, "end": ""}]), "response_format.format.tags[0].end"),
        ({"type": "tag", "content": NUMBER, "end": "x"}, "response_format.format.begin"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(format_: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fits({"format": format_}, "")
    assert refused.value.field == field
