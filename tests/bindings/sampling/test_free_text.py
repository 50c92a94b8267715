"""A grammar that passes over the text before a call is followed as one that looks at each of its tokens."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from llguidance import LLTokenizer

from llamabox.bindings.sampling.guidance import guidance_pieces, guidance_tokenizer
from llamabox.bindings.vocab import Vocab
from llamabox.chat.formats.form import GENERIC, Format, JsonCalls
from llamabox.chat.formats.grammar.answer import AnswerGrammar, Demand, Thinking, answer_grammar
from llamabox.grammar.constraint import GuidedConstraint, GuidedGrammar
from llamabox.grammar.free_text import FreeText
from llamabox.grammar.guidance import answer_grammar as in_guidance
from tests.chat.formats.test_answer_grammar import CALLABLE, CALLS, FORMS, vocabulary

HERMES = FORMS["hermes"]
TOKEN = "<|one|>"
"""A control token beside those of the forms. The demo model's own have the places of all."""

OPENINGS = {
    "hermes": "<tool_call>",
    "qwen": "<tool_call>",
    "mistral": "",
    "kimi": "",
    "python": "",
    "gemma": "",
    "generic": '{"tool_calls": [',
    "a tag twice": "<<<call>",
    "a control token": "",
    "skipped before a token": "",
}
"""Of the forms in which any text may come first."""

OTHERS: dict[str, tuple[Format, str]] = {
    "a tag twice": (replace(HERMES, calls=JsonCalls(open="<<<call>", close="!")), '<<<call>{"name": "stop", '),
    "a control token": (replace(HERMES, calls=JsonCalls(open=TOKEN, close="!")), TOKEN + '{"name": "stop", '),
    "skipped": (replace(HERMES, skipped=(TOKEN,)), CALLS["hermes"]),
    "skipped before a token": (replace(FORMS["gemma"], skipped=(TOKEN,)), TOKEN + CALLS["gemma"]),
}
ALL = {name: (form, CALLS[name]) for name, form in FORMS.items()} | OTHERS

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


class Told:
    """Texts of a form as tokens of the demo model, whose control tokens stand for the form's own."""

    def __init__(self, form: Format, vocab: Vocab) -> None:
        marks = [*vocabulary(form).ids, TOKEN]
        places = [token for token in vocab.control_tokens if token not in vocab.eog_tokens]
        assert len(marks) <= len(places)
        self.ids = dict(zip(marks, places, strict=False))
        self._split = re.compile(f"({'|'.join(map(re.escape, marks))})")
        self._vocab = vocab

    def tokens(self, text: str) -> list[int]:
        found: list[int] = []
        for piece in self._split.split(text):
            if piece in self.ids:
                found.append(self.ids[piece])
            else:
                found += self._vocab.tokenize(piece, add_special=False, parse_special=False)
        return found


def grammar_of(form: Format, told: Told, *, parallel: bool = True, **more: object) -> AnswerGrammar:
    demand = replace(Demand(tools=tuple(CALLABLE), parallel=parallel), **more)  # type: ignore[arg-type]
    return answer_grammar(form, demand, told.ids)


def says(constraint: GuidedConstraint) -> tuple[object, ...]:
    return constraint.is_complete, constraint.forced(5), constraint.mask().tolist()


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", OPENINGS)
def test_what_is_passed_over_changes_nothing(
    vocab: Vocab, tokenizer: LLTokenizer, pieces: list[bytes], name: str, parallel: bool
) -> None:
    form, call = ALL[name]
    told = Told(form, vocab)
    answer = grammar_of(form, told, parallel=parallel)
    assert answer.opening == OPENINGS[name]
    grammar = in_guidance(answer.text, {})
    free = FreeText(answer.opening.encode(), pieces)
    looks, passes = GuidedGrammar(grammar, tokenizer), GuidedGrammar(grammar, tokenizer, free)
    by_bytes = {piece: token for token, piece in enumerate(pieces) if len(piece) == 1}
    n_plain = 0
    for seed in range(6):
        chance = random.Random(seed)
        ours, oracle = passes.start(), looks.start()
        said = [chance.choice(SAID) for _ in range(8)]
        said.insert(4 + seed, call if seed % 3 else SAID[0])
        tokens = told.tokens("".join(said))
        if seed % 2 and answer.opening:  # letter by letter: characters are cut, and openings too
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
    answer = grammar_of(GENERIC, Told(GENERIC, vocab))
    assert answer.opening is not None
    grammar = in_guidance(answer.text, {})
    looks = GuidedGrammar(grammar, tokenizer).start()
    passes = GuidedGrammar(grammar, tokenizer, FreeText(answer.opening.encode(), pieces)).start()
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


@pytest.mark.parametrize("name", ALL)
def test_where_an_answer_begins_otherwise_no_text_is_passed_over(vocab: Vocab, name: str) -> None:
    form = replace(ALL[name][0], thought=HERMES.thought)
    told = Told(form, vocab)
    if name not in OPENINGS:
        assert grammar_of(form, told).opening is None
    assert grammar_of(form, told, must_call=True).opening is None
    assert grammar_of(form, told, final='"4"').opening is None
    for thinking in (Thinking.MAY_BEGIN, Thinking.BEGUN):
        assert grammar_of(form, told, thinking=thinking).opening is None


@pytest.mark.parametrize("name", ALL)
def test_forced_tokens_are_taken_at_once_as_one_by_one(
    vocab: Vocab, tokenizer: LLTokenizer, pieces: list[bytes], name: str
) -> None:
    """Whether text comes first or a call must, and wherever a list of forced tokens is left."""
    form, call = ALL[name]
    told = Told(form, vocab)
    n_forced = 0
    for must_call in (False, True):
        answer = grammar_of(form, told, must_call=must_call)
        free = None if answer.opening is None else FreeText(answer.opening.encode(), pieces)
        grammar = GuidedGrammar(in_guidance(answer.text, {}), tokenizer, free)
        for n_most in (2, 64):
            ours, oracle = grammar.start(), grammar.start()
            chance = random.Random(n_most)
            for token in told.tokens("" if must_call else call[: len(call) // 2]):
                if not ours.try_accept(token):
                    break
                oracle.accept(token)
            for _ in range(40):
                forced = ours.forced(n_most)
                assert forced == oracle.forced(n_most)
                if not forced:
                    assert says(ours) == says(oracle)
                    bits = np.unpackbits(ours.mask().view(np.uint8), bitorder="little")
                    may_come = [int(token) for token in np.flatnonzero(bits) if token not in vocab.eog_tokens]
                    if ours.is_complete or not may_come:
                        break
                    forced = [chance.choice(may_come)]
                else:
                    n_forced += len(forced)
                ours.accept_all(forced)
                for token in forced:
                    oracle.accept(token)
    assert n_forced > 5
