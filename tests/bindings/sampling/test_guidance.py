"""Grammars and schemas over the demo model's real vocabulary, against oracles that know nothing of llguidance."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llguidance import LLTokenizer

from llamabox.bindings.sampling.guidance import guidance_pieces, guidance_tokenizer
from llamabox.bindings.sampling.sampler import CANDIDATE
from llamabox.bindings.vocab import Vocab
from llamabox.errors import InvalidRequest
from llamabox.grammar import gbnf
from llamabox.grammar.constraint import GuidedConstraint, GuidedGrammar, Words
from llamabox.grammar.guidance import lark_grammar, schema_grammar
from llamabox.grammar.lark import to_lark

Compile = Callable[[str], GuidedGrammar]


@pytest.fixture(scope="module")
def tokenizer(vocab: Vocab) -> LLTokenizer:
    return guidance_tokenizer(vocab)


@pytest.fixture(scope="module")
def from_gbnf(vocab: Vocab, tokenizer: LLTokenizer) -> Compile:
    def find(text: str) -> int | None:
        found = vocab.tokenize(text, add_special=False, parse_special=True)
        return found[0] if len(found) == 1 else None

    return lambda text: GuidedGrammar(lark_grammar(to_lark(gbnf.parse(text, find, vocab.n_tokens))), tokenizer)


@pytest.fixture(scope="module")
def from_schema(tokenizer: LLTokenizer) -> Compile:
    return lambda text: GuidedGrammar(schema_grammar(text), tokenizer)


def allowed(constraint: GuidedConstraint, n_vocab: int) -> set[int]:
    bits = np.unpackbits(constraint.mask().view(np.uint8), count=n_vocab, bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def may_end(constraint: GuidedConstraint, vocab: Vocab) -> bool:
    return vocab.eog_tokens[0] in allowed(constraint, vocab.n_tokens)


def follows(grammar: GuidedGrammar, vocab: Vocab, text: str) -> bool:
    """Whether the grammar lets exactly this text be said; each step takes the longest token that it allows."""
    constraint, data = grammar.start(), text.encode()
    while data:
        fitting = [
            (len(piece), token)
            for token in allowed(constraint, vocab.n_tokens)
            if (piece := vocab.piece(token, special=False)) and data.startswith(piece)
        ]
        if not fitting:
            return False
        n_bytes, token = max(fitting)
        constraint.accept(token)
        data = data[n_bytes:]
    return may_end(constraint, vocab)


class LibllamaGrammar:
    """llama.cpp's own grammar sampler."""

    def __init__(self, vocab: Vocab, text: str) -> None:
        self._lib, self._ffi = vocab.native.lib, vocab.native.ffi
        self._sampler = self._lib.llama_sampler_init_grammar(vocab.handle, text.encode(), b"root")
        assert self._sampler != self._ffi.NULL, text
        self._candidates = np.zeros(vocab.n_tokens, CANDIDATE)
        self._candidates["id"] = np.arange(vocab.n_tokens)

    def allowed(self) -> set[int]:
        self._candidates["logit"] = 0
        array = self._ffi.new("llama_token_data_array *")
        array.data = self._ffi.cast("llama_token_data *", self._candidates.ctypes.data)
        array.size, array.selected = len(self._candidates), -1
        self._lib.llama_sampler_apply(self._sampler, array)
        return set(np.flatnonzero(self._candidates["logit"] == 0).tolist())

    def accept(self, token: int) -> None:
        self._lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        self._lib.llama_sampler_free(self._sampler)


def is_whole_text(piece: bytes) -> bool:
    """Neither a part of a character, nor U+0000: libllama guesses at the former and takes the latter for the end."""
    try:
        return bool(piece.decode()) and b"\0" not in piece
    except UnicodeDecodeError:
        return False


JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] | # any character
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

GRAMMARS = [
    JSON_GBNF,
    'root ::= "yes" | "no"',
    'root ::= [a-z]+ "end"',
    'root ::= (expr "=" term "\\n")+\nexpr ::= term ([-+*/] term)*\nterm ::= [a-z] | [0-9]+ | "(" expr ")"',
    "root ::= [a-z]*",
    'root ::= "(" root ")" | [0-9]*',
    'root ::= a b | b a\na ::= "x" | "x" a\nb ::= "y"*',
    'root ::= ("a" | "ab") ("bc" | "c") root | ""',
    'root ::= "a"*? "b"',
    'root ::= ( "x"\n | "y" # or this\n )+\n\n',
    'root ::= ("a"?){0,5} b | "c"\nb ::= "(" root ")"',
    'root ::= (([a-z]* " "){2}){2,} more\nmore ::= [0-9] more | "!"',
    "root ::= [-a] [a-] [\\]\\\\] .{2,4}",
    'root ::= s\ns ::= "a" s "x" | "a" s "y" | ""',
    "root ::= [^a-zA-Z]{1,30}",
]


PERSON = json.dumps(
    {
        "type": "object",
        "required": ["name", "age", "colour", "tags"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "maxLength": 10},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "colour": {"enum": ["red", "reddish", "blue"]},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+-[0-9]{2}$"}},
        },
    }
)


@pytest.mark.parametrize("text", [*GRAMMARS, PERSON], ids=range(len(GRAMMARS) + 1))
def test_a_token_that_is_asked_about_may_come_where_the_mask_lets_it_come(
    from_gbnf: Compile, from_schema: Compile, vocab: Vocab, text: str
) -> None:
    """But for those that end the text, and where it is forced. Greedy sampling asks, and needs few masks."""
    grammar = from_schema(text) if text is PERSON else from_gbnf(text)
    ends = set(vocab.eog_tokens)
    chance = random.Random(1)
    constraint, said = grammar.start(), []
    for _ in range(60 if text is PERSON else 12):
        mine = allowed(constraint, vocab.n_tokens)
        assert constraint.n_allowed([*ends]) == 0
        if constraint.is_complete:
            break
        if not constraint.forced(1):
            asked = {*chance.sample(range(vocab.n_tokens), 300), *vocab.control_tokens} - ends
            asked |= set(chance.sample(sorted(mine - ends), min(200, len(mine - ends))))
            assert {token for token in asked if constraint.n_allowed([token])} == mine & asked
        assert (behind := grammar.start().mask_behind(said)) is not None
        assert behind.tolist() == constraint.mask().tolist()
        said.append(chance.choice(sorted(mine - ends)))
        constraint.accept(said[-1])


@pytest.mark.parametrize("text", GRAMMARS, ids=range(len(GRAMMARS)))
def test_every_mask_on_a_random_walk_is_llama_cpps(from_gbnf: Compile, vocab: Vocab, text: str) -> None:
    """But where the text is forced: then our mask has one of its tokenisations only."""
    grammar = from_gbnf(text)
    whole = {token for token in range(vocab.n_tokens) if is_whole_text(vocab.piece(token, special=False))}
    ends = set(vocab.eog_tokens)
    n_compared = 0
    for seed in range(3):
        chance = random.Random(seed)
        ours, theirs = grammar.start(), LibllamaGrammar(vocab, text)
        for _ in range(12):
            mine, other = allowed(ours, vocab.n_tokens), theirs.allowed()
            if forced := ours.forced(1):
                assert mine == {forced[0]}
                assert mine <= other
            else:
                assert mine & (whole | ends) == other & (whole | ends)
                n_compared += 1
            following = sorted(mine & whole)
            if not following:
                break
            token = chance.choice(following)
            ours.accept(token)
            theirs.accept(token)
        theirs.close()
    assert n_compared


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ('root ::= [a-c]+ "b" [a-c]?', r"[a-c]+b[a-c]?"),
        ('root ::= ("é" | [ä-ü]){2} "😀"*', r"(é|[ä-ü]){2}😀*"),
        ('root ::= x{2,3} | "(" x ")"\nx ::= [0-9] | "-" [0-9]', r"(-?[0-9]){2,3}|\(-?[0-9]\)"),
        ('root ::= "a" root | ""', r"a*"),
        ('root ::= root "a" | "b"', r"ba*"),
        ('root ::= a\na ::= b "x"\nb ::= "" | a', r"x+"),
    ],
)
def test_texts_belong_exactly_where_a_regular_expression_says(
    from_gbnf: Compile, vocab: Vocab, text: str, expression: str
) -> None:
    grammar, chance = from_gbnf(text), random.Random(1)
    samples = ["".join(chance.choices("abcxé😀ü5-()", k=chance.randint(0, 5))) for _ in range(150)]
    samples += ["a", "aaa", "b", "baaa", "abc", "abbb", "éü😀😀", "55", "-5-5-5", "(5)", "(-5)", "xxx", ""]
    matching = [sample for sample in samples if re.fullmatch(expression, sample)]
    assert matching
    assert [sample for sample in samples if follows(grammar, vocab, sample)] == matching


def test_tokens_by_name_and_by_id(from_gbnf: Compile, vocab: Vocab) -> None:
    end = vocab.eog_tokens[-1]
    start = vocab.tokenize("<|im_start|>", add_special=False, parse_special=True)[0]
    constraint = from_gbnf('root ::= <|im_start|> "a" <[28]> !<[28]> "b"').start()
    assert allowed(constraint, vocab.n_tokens) == {start}
    for token in (start, *vocab.tokenize("a", add_special=False, parse_special=False), 28):
        assert token in allowed(constraint, vocab.n_tokens)
        constraint.accept(token)
    others = allowed(constraint, vocab.n_tokens)
    assert 28 not in others
    assert end not in others
    assert len(others) > vocab.n_tokens - 20


def test_forced_tokens_say_what_masks_alone_would_let_come(from_schema: Compile, vocab: Vocab) -> None:
    schema = {"type": "object", "properties": {"first_name": {"const": "Ada Lovelace"}}, "required": ["first_name"]}
    grammar = from_schema(json.dumps({**schema, "additionalProperties": False}))
    by_force, by_mask, said = grammar.start(), grammar.start(), b""
    while not by_force.is_complete:
        tokens = by_force.forced(1000) or sorted(allowed(by_force, vocab.n_tokens))[:1]
        for token in tokens:
            assert token in allowed(by_mask, vocab.n_tokens)
            by_mask.accept(token)
            by_force.accept(token)
            said += vocab.piece(token, special=False)
    assert by_mask.is_complete
    assert said == b'{"first_name":"Ada Lovelace"}'


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_choice_is_a_mask_where_nothing_is_forced_and_the_text_is_not_complete(
    from_schema: Compile, vocab: Vocab, is_prepared: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "string", "maxLength": 9}}}
    grammar = from_schema(json.dumps({**schema, "required": ["a", "b"], "additionalProperties": False}))
    chooser, other, drawn, kinds = grammar.start(), grammar.start(), random.Random(3), set()
    for _ in range(60):
        if is_prepared:
            chooser.prepare_choice()
        choice, forced = chooser.choice(), other.forced(1)
        kinds.add((bool(forced), choice is None))
        if forced or other.is_complete:
            assert choice is None
        else:
            assert choice is not None
            assert (choice == other.mask()).all()
        if other.is_complete:
            break
        token = forced[0] if forced else drawn.choice(sorted(allowed(other, vocab.n_tokens)))
        chooser.accept(token)
        other.accept(token)
    assert kinds == {(True, True), (False, False), (False, True)}


def test_a_token_is_thought_to_leave_a_choice_once_it_was_seen_to_and_no_more_once_something_was_forced(
    vocab: Vocab, tokenizer: LLTokenizer
) -> None:
    lark = 'start: (TEXT "x, and so on: <")*\nTEXT: /[^x]*/'
    constraint = GuidedGrammar(lark_grammar(lark), tokenizer, pieces=guidance_pieces(vocab)).start()
    word, line, tag, end = (
        vocab.tokenize(text, add_special=False, parse_special=False)[0] for text in ("a", "\n", "<", "x")
    )

    def thought_free(token: int) -> bool:
        """Whether it is, where it may come now; and then it comes, with what has to come behind it."""
        constraint.prepare_choice()
        found = constraint.is_free_behind(token)
        constraint.accept(token)
        while (forced := constraint.forced(100)) or len(some := allowed(constraint, vocab.n_tokens)) < 1000:
            constraint.accept_all(forced or [max(some, key=lambda token: len(vocab.piece(token, special=False)))])
        return found

    said = [word, line, tag, end] * 3
    found = [thought_free(token) for token in said]
    assert found == [True, False, False, True, True, True, True, False, True, True, True, False]


def test_where_words_end_strings_again_and_again_none_is_thought_to_leave_a_choice(
    vocab: Vocab, tokenizer: LLTokenizer
) -> None:
    words = Words(guidance_pieces(vocab))
    first, second, third = (vocab.tokenize(text, add_special=False, parse_special=False)[0] for text in "abc")
    assert all(map(words.is_free_behind, (first, second, third)))
    words.note(first, is_free=False)
    words.note(first, is_free=False)
    assert not words.is_free_behind(first)
    assert words.is_free_behind(third)
    words.note(second, is_free=False)
    assert not words.is_free_behind(third)


def test_a_forced_list_is_used_up_bit_by_bit(from_schema: Compile, vocab: Vocab) -> None:
    """One that is known from the start, and one behind a choice; each bit is what a list made anew begins with."""
    schema = {"properties": {"a": {"const": "x" * 300}, "b": {"type": "boolean"}, "c": {"const": "y" * 200}}}
    text = json.dumps({"type": "object", **schema, "required": ["a", "b", "c"], "additionalProperties": False})
    constraint, n_choices, said = from_schema(text).start(), 0, []
    while not constraint.is_complete:
        anew = from_schema(text).start()
        anew.mask()
        for token in said:
            anew.accept(token)
        forced = constraint.forced(7)
        assert forced == anew.forced(1000)[:7]
        n_choices += not forced
        token = forced[0] if forced else min(allowed(constraint, vocab.n_tokens))
        constraint.accept(token)
        said.append(token)
    assert n_choices == 1
    assert len(said) > 50


def test_an_end_is_allowed_exactly_where_the_text_may_end(from_gbnf: Compile, vocab: Vocab) -> None:
    grammar = from_gbnf("root ::= [a-z]{3,5}")
    found = []
    for n in range(6):
        constraint = grammar.start()
        for token in vocab.tokenize("x" * n, add_special=False, parse_special=False):
            constraint.accept(token)
        found.append(set(vocab.eog_tokens) & allowed(constraint, vocab.n_tokens))
    assert found == [set()] * 3 + [set(vocab.eog_tokens)] * 3
    assert constraint.is_complete


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"if": {}, "then": {}}, "if"),
        ({"not": {"type": "string"}, "type": "string"}, "not"),
        ({"type": "object", "propertyNames": {"minLength": 2}}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"$dynamicRef": "#"}, "$dynamicRef"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}, "oneOf"),
        ({"type": "string", "format": "nope"}, "nope"),
        ({"type": "strin"}, "strin"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"$ref": "#/$defs/nope"}, "nope"),
        ({"$ref": "#"}, "nothing fits"),
        ({"x-guidance": {"lenient": True}, "uniqueItems": True}, "x-guidance"),
    ],
)
def test_what_a_schema_cannot_have_is_named(from_schema: Compile, schema: dict[str, object], name: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(name)):
        from_schema(json.dumps(schema))


def test_annotations_change_nothing(from_schema: Compile, vocab: Vocab) -> None:
    notes = {"title": "t", "description": "d", "default": "x", "examples": ["y"], "deprecated": True, "$comment": "c"}
    grammar = from_schema(json.dumps({"type": "string", "enum": ["x", "zz"], **notes}))
    assert [text for text in ('"x"', '"zz"', '"y"', ' "x"', "") if follows(grammar, vocab, text)] == ['"x"', '"zz"']


def test_no_keyword_of_the_standard_passes_unheard(from_schema: Compile) -> None:
    """Those that llguidance does not keep are errors, which the test above relies on."""
    unkept = (
        "then", "else", "minContains", "maxContains", "unevaluatedItems", "dependentSchemas", "dependencies",
        "$recursiveRef",
    )  # fmt: skip
    silent = []
    for keyword in unkept:
        try:
            from_schema(json.dumps({"type": "object", keyword: {"a": ["b"]}}))
        except InvalidRequest:
            continue
        silent.append(keyword)
    assert silent == []


def test_grammars_of_the_readme(from_gbnf: Compile, vocab: Vocab) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    [text] = re.findall(r'"grammar": (".*")\}\'', readme)
    grammar = from_gbnf(json.loads(text))
    assert follows(grammar, vocab, " no, it is warm.")
    assert not follows(grammar, vocab, " no")
