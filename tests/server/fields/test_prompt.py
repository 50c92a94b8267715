"""The forms of a prompt, and that only ids of the vocabulary get through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.media.source import MediaSource
from llamabox.server.fields.prompt import RawPrompt, check_fits, parse_prompts
from llamabox.wire.text_config import ModelInfo
from tests.server.fake_client import INFO
from tests.server.fake_media import SEES_AND_HEARS

MARKER = "<__media_7f3a__>"
SEEING = replace(INFO, media=SEES_AND_HEARS)


def parsed(value: Any, info: ModelInfo = INFO) -> tuple[list[RawPrompt], bool]:
    return parse_prompts({"prompt": value}, info, MARKER)


def source(data: str, field: str) -> MediaSource:
    return MediaSource(kind=None, data=data, field=field)


@pytest.mark.parametrize(
    ("value", "prompts", "is_list"),
    [
        ("a", [["a"]], False),
        ("", [[""]], False),
        ([1, 2], [[1, 2]], False),
        ([1, "a", 2], [[1, "a", 2]], False),
        (["a"], [["a"]], True),
        (["a", "b"], [["a"], ["b"]], True),
        ([[1, 2], "b", [3, "c"]], [[1, 2], ["b"], [3, "c"]], True),
        ({"prompt_string": "a"}, [["a"]], False),
        ([{"prompt_string": "a", "multimodal_data": []}, "b"], [["a"], ["b"]], True),
    ],
)
def test_forms(value: Any, prompts: list[RawPrompt], is_list: bool) -> None:
    assert parsed(value) == (prompts, is_list)


@pytest.mark.parametrize(
    "value",
    [
        [], [[]], 5, 1.5, True, {}, {"prompt_string": 5}, {"prompt_string": "a", "multimodal_data": ["x"]},
        [-1], [INFO.n_vocab], [1.0], [1, 2.0], [True], ["a", True], [[1, None]], [1, [2]], [[[1]]], [None], [10**18],
        ["a"] * 1025,
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_no_prompt_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(value)
    assert (caught.value.field or "").startswith("prompt")


def test_it_must_be_there() -> None:
    with pytest.raises(InvalidRequest, match="'prompt': is required"):
        parse_prompts({}, INFO, MARKER)


def test_only_what_cannot_fit_is_refused_here() -> None:
    n_bytes = INFO.n_ctx * INFO.longest_piece
    check_fits(["a" * n_bytes], INFO)
    check_fits([1] * INFO.n_ctx, INFO)
    check_fits([1, "a" * (n_bytes - INFO.longest_piece)], INFO)
    for prompt in (["a" * (n_bytes + 1)], ["é" * (n_bytes // 2 + 1)], [1] * (INFO.n_ctx + 1), [1, "a" * n_bytes]):
        with pytest.raises(ContextExceeded) as caught:
            check_fits(prompt, INFO)  # type: ignore[arg-type]
        assert caught.value.details == {"n_prompt_tokens": INFO.n_ctx + 1, "n_ctx": INFO.n_ctx}


def test_media_stand_where_the_markers_do() -> None:
    mixed = {"prompt_string": f"a{MARKER}{MARKER}b", "multimodal_data": ["x", "y"]}
    where = "prompt.multimodal_data"
    assert parsed(mixed, SEEING) == ([["a", source("x", f"{where}[0]"), source("y", f"{where}[1]"), "b"]], False)
    alone = {"prompt_string": MARKER, "multimodal_data": ["x"]}
    assert parsed(["c", alone], SEEING) == ([["c"], [source("x", "prompt[1].multimodal_data[0]")]], True)


def test_a_marker_in_a_plain_text_is_text() -> None:
    for value in (
        f"a{MARKER}",
        {"prompt_string": f"a{MARKER}"},
        {"prompt_string": f"a{MARKER}", "multimodal_data": None},
    ):
        assert parsed(value, SEEING) == ([[f"a{MARKER}"]], False)


@pytest.mark.parametrize(
    ("text", "data", "field", "words"),
    [
        ("a", ["x"], "prompt", "0 media markers for the 1 entries"),
        (f"a{MARKER}", [], "prompt", "1 media markers for the 0 entries"),
        (f"a{MARKER}b{MARKER}", ["x"], "prompt", "2 media markers for the 1 entries"),
        (f"a{MARKER}", "x", "prompt.multimodal_data", "must be an array"),
        (f"a{MARKER}", [5], "prompt.multimodal_data[0]", "must be a string"),
        (5, ["x"], "prompt.prompt_string", "must be a string"),
    ],
)
def test_markers_and_media_must_agree(text: Any, data: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        parsed({"prompt_string": text, "multimodal_data": data}, SEEING)
    assert caught.value.field == field


def test_a_server_without_a_projector_names_the_option() -> None:
    with pytest.raises(InvalidRequest, match="--mmproj") as caught:
        parsed({"prompt_string": MARKER, "multimodal_data": ["x"]})
    assert caught.value.field == "prompt.multimodal_data[0]"
