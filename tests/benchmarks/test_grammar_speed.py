"""What a constraint costs beside a decode: its compilation, a mask, and what a forced token saves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from llguidance import LLTokenizer
from pytest_benchmark.fixture import BenchmarkFixture

from llamabox.bindings import backend, ffi
from llamabox.bindings.model import Model
from llamabox.bindings.sampling.guidance import guidance_tokenizer
from llamabox.demo import ensure_demo_model
from llamabox.grammar import gbnf
from llamabox.grammar.constraint import GuidedConstraint, GuidedGrammar
from llamabox.grammar.guidance import lark_grammar, schema_grammar
from llamabox.grammar.lark import to_lark

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("name", "street", "city", "country")}
        | {"age": {"type": "integer"}},
        "required": ["name", "street", "city", "country", "age"],
        "additionalProperties": False,
    }
)

NESTED = r"""
root ::= "[" (item ("," item)*)? "]"
item ::= root | "\"" [^"]* "\""
"""


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[LLTokenizer]:
    native = ffi.load()
    backend.start(native)
    with Model.load(native, ensure_demo_model(progress=False)) as model:
        yield guidance_tokenizer(model.vocab)


def inside_a_string(grammar: GuidedGrammar, tokenizer: LLTokenizer, text: str) -> GuidedConstraint:
    constraint = grammar.start()
    for token in tokenizer.tokenize_str(text):
        constraint.accept(token)
    return constraint


def masks(constraint: GuidedConstraint, token: int) -> None:
    """One mask of a state that was not there before."""
    constraint.accept(token)
    constraint.prepare()
    constraint.mask()


def test_compile_a_schema(benchmark: BenchmarkFixture, tokenizer: LLTokenizer) -> None:
    benchmark(lambda: GuidedGrammar(schema_grammar(SCHEMA), tokenizer))


def test_compile_a_grammar(benchmark: BenchmarkFixture, tokenizer: LLTokenizer) -> None:
    def compile_it() -> GuidedGrammar:
        rules = gbnf.parse(NESTED, lambda text: None, tokenizer.vocab_size)
        return GuidedGrammar(lark_grammar(to_lark(rules)), tokenizer)

    benchmark(compile_it)


@pytest.mark.parametrize("kind", ["schema", "recursive grammar"])
def test_a_mask_inside_a_string(benchmark: BenchmarkFixture, tokenizer: LLTokenizer, kind: str) -> None:
    if kind == "schema":
        constraint = inside_a_string(GuidedGrammar(schema_grammar(SCHEMA), tokenizer), tokenizer, '{"name":"Ada')
    else:
        rules = gbnf.parse(NESTED, lambda text: None, tokenizer.vocab_size)
        constraint = inside_a_string(GuidedGrammar(lark_grammar(to_lark(rules)), tokenizer), tokenizer, '[["a')
    [token] = tokenizer.tokenize_str("e")
    benchmark.pedantic(masks, (constraint, token), rounds=100)
