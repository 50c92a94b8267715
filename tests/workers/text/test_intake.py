"""From what a client wrote to the segments of a prompt."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llamabox.engine.request import PromptText, Words
from llamabox.errors import InvalidRequest
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
