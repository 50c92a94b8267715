"""From what a client wrote to the segments of a prompt, and to the tokens of a logit bias."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from llamabox.engine.request import (
    MAX_BIASES,
    GenerationParams,
    Picture,
    PromptPart,
    PromptText,
    Request,
    SamplingParams,
    Sound,
    Words,
)
from llamabox.errors import InvalidRequest
from llamabox.wire.text import Submit
from llamabox.workers.text.intake import Intake

BOS = 1


class FakeVocab:
    """A token for each character: its code."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [BOS] * add_special + [ord(character) for character in text]

    def check(self, token: int) -> int:
        if token > 999:
            raise InvalidRequest(f"token id {token} is not in the vocabulary")
        return token


@pytest.fixture
def intake() -> Intake:
    return Intake(cast(Any, FakeVocab()), cast(Any, None), 64)


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        (["ab", 5, "c"], (BOS, 97, 98, 5, 99)),
        ([5, "a", 6], (5, 97, 6)),
        ([7], (7,)),
    ],
)
def test_strings_and_ids_are_one_segment_and_only_a_leading_string_gets_bos(
    intake: Intake, written: PromptText, tokens: tuple[int, ...]
) -> None:
    assert intake.prompt(written, add_special=True, parse_special=True) == (Words(tokens),)


def test_a_prompt_of_nothing_has_no_segment(intake: Intake) -> None:
    assert intake.prompt([""], add_special=False, parse_special=True) == ()


def test_an_id_beyond_the_vocabulary_never_reaches_the_engine(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="1000 is not in the vocabulary"):
        intake.prompt(["a", 1000], add_special=True, parse_special=True)


@pytest.mark.parametrize("part", [Picture(1, 1, b"rgb"), Sound(16000, b"\0" * 4)])
def test_a_model_without_a_projector_takes_no_media(intake: Intake, part: PromptPart) -> None:
    with pytest.raises(InvalidRequest, match="this model takes no images or sound"):
        intake.prompt(["a", part], add_special=True, parse_special=True)


class Letters:
    """A vocabulary of bytes, with a BOS. Token 256 is special, 257 ends inside a character."""

    n_tokens = 1000
    add_bos = True
    bos = 256

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [self.bos] * add_special + list(text.encode())

    def check(self, token: int) -> int:
        return token

    def text(self, token: int) -> str:
        return {self.bos: "<s>"}[token]

    def piece(self, token: int, *, special: bool) -> bytes:
        return b"" if token == self.bos and not special else bytes([token]) if token < 256 else b"\xc3"


class NoSamplers:
    def __init__(self) -> None:
        self.asked: list[SamplingParams] = []

    def source(self, params: SamplingParams, tokens: list[int]) -> None:
        self.asked.append(params)


@pytest.fixture
def samplers() -> NoSamplers:
    return NoSamplers()


@pytest.fixture
def letters(samplers: NoSamplers) -> Intake:
    made = Intake(cast(Any, Letters()), cast(Any, None), 100)
    made._samplers = cast(Any, samplers)
    return made


def taken(letters: Intake, prompt: PromptText, bias: Any = (), **params: Any) -> Request:
    params["sampling"] = SamplingParams(logit_bias=bias)
    return letters.request(Submit(request_id="1", prompt=prompt, params=GenerationParams(**params)))


def test_a_text_biases_each_of_its_tokens_and_the_last_word_on_a_token_counts(
    letters: Intake, samplers: NoSamplers
) -> None:
    request = taken(letters, ["x"], ((97, 1.0), ("ab", -math.inf), (98, 2.5), (5, 1.0)))
    assert request.logit_bias == ((97, -math.inf), (98, 2.5), (5, 1.0))
    assert request.params.sampling.logit_bias == samplers.asked[0].logit_bias == request.logit_bias


def test_a_prediction_becomes_tokens_as_an_answer_has_them_up_to_a_context_of_them(letters: Intake) -> None:
    submit = Submit(request_id="1", prompt=["x"], params=GenerationParams(), prediction="ab" * 100)
    assert letters.request(submit).params.drafting.prediction == (97, 98) * 50
    assert taken(letters, ["x"]).params.drafting.prediction == ()


def test_without_texts_there_is_nothing_to_tell(letters: Intake) -> None:
    request = taken(letters, ["x"], ((97, 1.0),))
    assert (request.logit_bias, request.params.sampling.logit_bias) == (None, ((97, 1.0),))
    assert request.prompt_text is None


def test_too_many_tokens_are_refused(letters: Intake) -> None:
    ids = tuple((token, 1.0) for token in range(300, 300 + MAX_BIASES))
    assert taken(letters, ["x"], (*ids[1:], ("a", 1.0))).logit_bias is not None
    with pytest.raises(InvalidRequest, match="Field 'logit_bias': its texts become more than 4096 tokens") as caught:
        taken(letters, ["x"], (*ids, ("a", 1.0)))
    assert caught.value.field == "logit_bias"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (["a", "b"], "<s>ab"),
        ([97, 98], "ab"),
        (["a", 98, 256, 99, "d"], "<s>abcd"),
        ([97, "b"], "ab"),
        (["a", 257, "b", 257, 169], "<s>a\ufffdbé"),
        ([], ""),
    ],
)
def test_a_prompt_is_told_as_the_model_gets_it_where_that_is_asked_for(
    letters: Intake, prompt: PromptText, text: str
) -> None:
    assert taken(letters, prompt, return_prompt=True).prompt_text == text
