"""A grammar that passes over the text before a call is followed as one that looks at each of its tokens."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from llguidance import LLTokenizer

from llamabox.bindings.sampling.guidance import guidance_pieces, guidance_tokenizer
from llamabox.bindings.vocab import Vocab
from llamabox.chat.formats.form import GENERIC, Format, JsonCalls
from llamabox.chat.formats.grammar.answer import Demand, answer_grammar
from llamabox.chat.formats.grammar.tool import Tool
from llamabox.grammar.constraint import GuidedConstraint, GuidedGrammar
from llamabox.grammar.free_text import FreeText, opening_in
from llamabox.grammar.guidance import answer_grammar as in_guidance

TOKEN = "<|im_start|>"
"""A control token of the demo model's."""

TAG = JsonCalls(open="<tool_call>\n", close="\n</tool_call>", separator="\n")
FORMS = {
    "generic": GENERIC,
    "a tag": Format(name="json", calls=TAG),
    "a tag twice": Format(name="json", calls=replace(TAG, open="<<<call>")),
    "a control token": Format(name="json", calls=JsonCalls(open=TOKEN, close="!")),
}
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = (Tool("greet", {**NAME, "additionalProperties": False}), Tool("stop", {"type": "object", "properties": {}}))
SAID = (
    "Ah, ünïcödé 漢字 🙂 ",
    "<",
    "<tool",
    "<tool_cal l>",
    '{"tool_',
    '{"tool_calls":[',
    "<<<",
    "<<call>",
    "\n",
    "{}",
    "ok.",
)
"""What may come before a call, with beginnings of openings among it."""


@pytest.fixture(scope="module")
def pieces(vocab: Vocab) -> list[bytes]:
    return guidance_pieces(vocab)


@pytest.fixture(scope="module")
def tokenizer(vocab: Vocab, pieces: list[bytes]) -> LLTokenizer:
    return guidance_tokenizer(vocab, pieces)


def text_of(form: Format, vocab: Vocab, *, parallel: bool) -> str:
    [token] = vocab.tokenize(TOKEN, add_special=False, parse_special=True)
    return answer_grammar(form, Demand(tools=TOOLS, parallel=parallel), {TOKEN: token}).text


def says(constraint: GuidedConstraint) -> tuple[object, ...]:
    return constraint.is_complete, constraint.forced(5), constraint.mask().tolist()


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_what_is_passed_over_changes_nothing(
    vocab: Vocab, tokenizer: LLTokenizer, pieces: list[bytes], name: str, parallel: bool
) -> None:
    text = text_of(FORMS[name], vocab, parallel=parallel)
    opening = opening_in(text)
    assert opening is not None
    grammar = in_guidance(text, {})
    free = FreeText(opening, pieces)
    looks, passes = GuidedGrammar(grammar, tokenizer), GuidedGrammar(grammar, tokenizer, free)
    by_bytes = {piece: token for token, piece in enumerate(pieces) if len(piece) == 1}
    n_plain = 0
    for seed in range(6):
        chance = random.Random(seed)
        ours, oracle = passes.start(), looks.start()
        call = f'{opening.decode() or TOKEN}{{"name": "greet", "arguments": {{"name": "A <{seed}>"}}}}'
        said = [chance.choice(SAID) for _ in range(8)]
        said.insert(4 + seed, call if seed % 3 else SAID[0])
        tokens = vocab.tokenize("".join(said), add_special=False, parse_special=True)
        if seed % 2 and opening:  # letter by letter: characters are cut, and openings too
            tokens = [by_bytes[bytes([byte])] for byte in "".join(said).encode()]
        for i, token in enumerate(tokens):
            if i % 5 == 0 or i > len(tokens) - 8:
                assert says(ours) == says(oracle), (seed, i)
            some = chance.sample(range(vocab.n_tokens), 20)
            assert [ours.n_allowed([one]) for one in some] == [oracle.n_allowed([one]) for one in some]
            bits = np.unpackbits(oracle.mask().view(np.uint8), bitorder="little")
            n_plain += free.plain[token]
            if not bits[token]:  # behind a call's opening only a call may come
                assert oracle.forced(1) or not ours.try_accept(token)
                break
            if seed % 4:
                assert ours.try_accept(token)
            else:
                ours.accept(token)
            oracle.accept(token)
        assert says(ours) == says(oracle)
    assert n_plain > 20


def test_a_draft_over_an_opening_is_followed(vocab: Vocab, tokenizer: LLTokenizer, pieces: list[bytes]) -> None:
    grammar = in_guidance(text_of(GENERIC, vocab, parallel=True), {})
    looks = GuidedGrammar(grammar, tokenizer).start()
    passes = GuidedGrammar(grammar, tokenizer, FreeText(b'{"tool_calls": [', pieces)).start()
    tokens = vocab.tokenize('So: {"tool_calls": [{"name": "st', add_special=False, parse_special=False)
    for n in range(len(tokens)):
        assert passes.n_allowed(tokens[:n]) == looks.n_allowed(tokens[:n])
        mine, theirs = passes.mask_behind(tokens[:n]), looks.mask_behind(tokens[:n])
        assert mine is not None
        assert theirs is not None
        assert mine.tolist() == theirs.tolist()
    passes.look_ahead(tokens[:4], forces=True)
    looks.look_ahead(tokens[:4], forces=True)
    for mine, theirs in zip(passes.masks_ahead(), looks.masks_ahead(), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or mine.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    "text",
    [
        'start: section+\nhead[lazy]: TEXT "<a>"\n',
        'start: (<[5]>)* section* TEXT\nhead[lazy]: TEXT "<a>"\n',
        'start: ("<think>" thought BLANKS?)? section* TEXT\nhead[lazy]: TEXT "<a>"\n',
        "start: text (section text)*\ntext: (SOMETHING | <[5]>)*\n",
        "start: section* TEXT\n",
        "",
    ],
)
def test_no_other_grammar_is_taken_for_one_with_any_text_at_first(text: str) -> None:
    assert opening_in(f"%llguidance {{}}\n{text}") is None
