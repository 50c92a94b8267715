"""From a prompt with pictures and sounds to segments, and what a chunk is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from llamabox.bindings.media.projector import Projector, ProjectorParams
from llamabox.engine.request import GenerationParams, Media, Picture, PromptText, Request, Sound, Words, n_cells
from llamabox.errors import ContextExceeded, InvalidRequest, Unavailable
from llamabox.wire.text import Embed, Submit
from llamabox.workers.text.intake import Intake
from llamabox.workers.text.media.content import Content, PreparedBytes
from tests.models.media import tones
from tests.models.media.colours import square
from tests.observed import model as demo_model

RED = Picture(96, 96, square("red", "blue"))
GREEN = Picture(96, 96, square("green", "blue"))
SECRET = Sound(tones.RATE, tones.spoken("The", " secret", " word"))
N_CTX = 64


@pytest.fixture(scope="module")
def intake(mmproj: Path) -> Iterator[Intake]:
    with Projector(demo_model(), mmproj, ProjectorParams()) as projector:
        yield Intake(demo_model().vocab, cast(Any, None), N_CTX, projector)


def taken(intake: Intake, *prompt: str | int | Picture | Sound) -> Request:
    return intake.request(Submit(request_id="r", prompt=list(prompt), params=GenerationParams(return_prompt=True)))


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(demo_model().vocab.tokenize(text, add_special=False, parse_special=True))


def test_media_stand_between_the_words_and_bring_their_content(intake: Intake) -> None:
    request = taken(intake, "What is this?", RED, 5, 6, " and this?", SECRET)
    first, picture, words, *sound = request.prompt
    assert first == Words(tokens_of("What is this?"))
    assert isinstance(words, Words)
    assert words.tokens[:2] == (5, 6)
    assert words.tokens[2:][: len(tokens_of(" and this?"))] == tokens_of(" and this?")
    assert set(request.contents) == {picture, *(part for part in sound if isinstance(part, Media))}
    assert request.prompt_text is not None
    assert request.prompt_text.startswith("What is this?")


def test_a_picture_is_one_content_wherever_it_stands_and_others_have_their_own(intake: Intake) -> None:
    request = taken(intake, RED, RED, GREEN)
    first, again, other = request.prompt
    assert first == again != other
    assert len(request.contents) == 2


def test_text_and_ids_alone_are_the_words_that_they_are_without_a_projector(intake: Intake) -> None:
    plain = Intake(demo_model().vocab, cast(Any, None), N_CTX)
    prompt: PromptText = ["<|im_start|>", 5, "<__media__>"]
    asked = Submit(request_id="r", prompt=prompt, params=GenerationParams())
    assert intake.request(asked).prompt == plain.request(asked).prompt


def test_counting_counts_what_would_be_computed(intake: Intake) -> None:
    prompt: PromptText = ["a", RED, "b", SECRET]
    counted = intake.prompt(prompt, add_special=True, parse_special=True)
    assert counted == taken(intake, *prompt).prompt


def test_what_cannot_fit_is_refused_with_the_numbers_before_it_is_prepared(intake: Intake) -> None:
    prompt: PromptText = ["a", *[RED] * 8]
    n_prompt = n_cells(intake.prompt(prompt, add_special=True, parse_special=True))
    assert n_prompt >= N_CTX
    with pytest.raises(ContextExceeded) as refusal:
        taken(intake, *prompt)
    assert (refusal.value.details["n_prompt_tokens"], refusal.value.details["n_ctx"]) == (n_prompt, N_CTX)


def test_a_passage_that_cannot_fit_is_named_with_the_numbers_and_one_that_just_fits_is_taken(intake: Intake) -> None:
    n_picture = n_cells(intake.prompt([RED], add_special=True, parse_special=True))
    fitting = [RED, *[5] * (N_CTX - n_picture)]
    taken = intake.passages(Embed(request_id="r", first=4, n_left=2, prompts=[fitting, ["text"]]))
    assert [(one.index, one.n_cells) for one in taken.with_media] == [(4, N_CTX)]
    assert [one.index for one in taken.passages] == [5]
    with pytest.raises(ContextExceeded, match="input 4 is too large to process") as refusal:
        intake.passages(Embed(request_id="r", first=4, n_left=1, prompts=[[*fitting, 5]]))
    assert (refusal.value.details["n_prompt_tokens"], refusal.value.details["n_ctx"]) == (N_CTX + 1, N_CTX)
    with pytest.raises(InvalidRequest, match=r"input 7: .*3 a pixel"):
        intake.passages(Embed(request_id="r", first=7, n_left=1, prompts=[[Picture(10, 10, b"too few")]]))


def test_a_broken_medium_is_refused_and_nothing_of_the_others_stays(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="3 a pixel"):
        taken(intake, RED, Picture(10, 10, b"too few"))


def test_a_request_that_is_dropped_frees_its_content(intake: Intake) -> None:
    request = taken(intake, RED)
    [content] = request.contents.values()
    assert isinstance(content, Content)
    chunk = content.prepared()
    del content, request
    assert not chunk.is_open


def test_what_has_its_rows_already_is_prepared_only_if_they_go(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is the chunk that it would have been; and until it is dropped it takes its room."""
    prompt: PromptText = ["a", RED, 5, GREEN, "b", RED, SECRET]
    prepared = taken(intake, *prompt)
    known = set(prepared.contents)
    n_prepared: list[int] = []
    monkeypatch.setattr(intake, "room", PreparedBytes())
    monkeypatch.setattr(intake, "_has_rows", known.__contains__)
    tokenize = Projector.tokenize

    def counted(self: Projector, parts: Any, *, add_special: bool, counts_only: bool = False) -> Any:
        n_prepared.append(not counts_only)
        return tokenize(self, parts, add_special=add_special, counts_only=counts_only)

    monkeypatch.setattr(Projector, "tokenize", counted)
    put_off = taken(intake, *prompt)
    assert (put_off.prompt, set(put_off.contents), put_off.n_audio) == (prepared.prompt, known, prepared.n_audio)
    assert sum(n_prepared) == 0
    assert intake.room.n_held >= sum(part.n_bytes for part in (RED, GREEN, RED, SECRET))
    chunks = []
    for media in known:
        now, then = put_off.contents[media], prepared.contents[media]
        assert isinstance(now, Content)
        assert isinstance(then, Content)
        assert (now.is_sound, now.shape) == (then.is_sound, then.shape)
        chunks.append(now.prepared())
        assert now.prepared() is chunks[-1]
        [mine], [other] = (intake._projector.encode([one]) for one in (chunks[-1], then.prepared()))  # type: ignore[union-attr]
        assert np.array_equal(mine.embeddings, other.embeddings)
    del now, then, put_off
    assert intake.room.n_held == 0
    assert not any(chunk.is_open for chunk in chunks)
    monkeypatch.setattr(intake, "_has_rows", {*[*known][1:]}.__contains__)
    n_prepared.clear()
    taken(intake, *prompt)
    assert sum(n_prepared) == 1, "one that has no rows yet needs all of the prompt"


def test_tiny_pictures_of_those_who_wait_take_no_more_than_their_room(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel in a request becomes a picture of the projector's size in memory."""
    monkeypatch.setattr(intake, "room", PreparedBytes(1 << 20))
    waiting: list[Request] = []
    with pytest.raises(Unavailable, match="try again later"):
        waiting.extend(taken(intake, Picture(1, 1, bytes((i % 256, i // 256, 0)))) for i in range(1000))
    assert 1 < len(waiting) < 100
    assert intake.room.n_held <= 1 << 20
    waiting.clear()
    assert intake.room.n_held == 0
    taken(intake, RED)


def test_what_alone_is_larger_than_the_room_is_taken(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "room", PreparedBytes(1))
    held = taken(intake, RED)
    with pytest.raises(Unavailable):
        taken(intake, RED, GREEN)
    assert held.contents
