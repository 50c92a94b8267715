"""The forms of a prompt, and that only ids of the vocabulary get through."""

from __future__ import annotations

from typing import Any

import pytest

from llamabox.engine.request import PromptText
from llamabox.errors import ContextExceeded, InvalidRequest
from llamabox.server.fields.prompt import check_fits, parse_prompts
from tests.server.fake_client import INFO


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
def test_forms(value: Any, prompts: list[PromptText], is_list: bool) -> None:
    assert parse_prompts({"prompt": value}, INFO) == (prompts, is_list)


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
        parse_prompts({"prompt": value}, INFO)
    assert caught.value.field == "prompt"


def test_it_must_be_there() -> None:
    with pytest.raises(InvalidRequest, match="'prompt': is required"):
        parse_prompts({}, INFO)


def test_only_what_cannot_fit_is_refused_here() -> None:
    n_bytes = INFO.n_ctx * INFO.longest_piece
    check_fits(["a" * n_bytes], INFO)
    check_fits([1] * INFO.n_ctx, INFO)
    check_fits([1, "a" * (n_bytes - INFO.longest_piece)], INFO)
    for prompt in (["a" * (n_bytes + 1)], ["é" * (n_bytes // 2 + 1)], [1] * (INFO.n_ctx + 1), [1, "a" * n_bytes]):
        with pytest.raises(ContextExceeded) as caught:
            check_fits(prompt, INFO)  # type: ignore[arg-type]
        assert caught.value.details == {"n_prompt_tokens": INFO.n_ctx + 1, "n_ctx": INFO.n_ctx}
